"""Networks of one shape run at once: their channels side by side, their convolutions as groups of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.networks.cifar_resnet import BasicBlock
from longtail.networks.resnet import ResidualBlock


def run_at_once(networks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Run networks that are alike in shape as one; the weights stay theirs and the values those of running each.

    Args:
        networks: E of them, made of sequences, convolutions without bias, batch norm, `BasicBlock`, `ResidualBlock` and
            layers without parameters that treat each channel alone.
        x: One input for all, (B, c, H, W), or their inputs side by side, (B, E * c, H, W).

    Returns:
        Their outputs side by side, (B, E * d, h, w).

    Raises:
        NotImplementedError: A network has a layer of another kind.
    """
    first = networks[0]
    if isinstance(first, nn.Sequential):
        for layers in zip(*networks, strict=True):
            x = run_at_once(layers, x)
        return x
    if isinstance(first, BasicBlock):
        return _basic_block(networks, x)
    if isinstance(first, ResidualBlock):
        return _residual_block(networks, x)
    if isinstance(first, nn.Conv2d):
        return _convolution(networks, x)
    if isinstance(first, nn.BatchNorm2d):
        return _batch_norm(networks, x)
    if any(True for _ in first.parameters()):
        raise NotImplementedError(f"{type(first).__name__} cannot run for several experts at once")
    out: Tensor = first(x)
    return out


def _side_by_side(layers: Sequence[nn.Module], name: str) -> Tensor:
    return torch.cat([getattr(layer, name) for layer in layers])


def _convolution(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    # One input for all is a single, wider convolution; the groups of a grouped one would then not be side by side.
    if first.groups > 1 and x.shape[1] == first.in_channels and len(layers) > 1:
        x = x.repeat(1, len(layers), 1, 1)
    groups = x.shape[1] // first.in_channels * first.groups
    assert isinstance(first.padding, tuple)
    return F.conv2d(x, _side_by_side(layers, "weight"), None, first.stride, first.padding, groups=groups)


def _batch_norm(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    first = layers[0]
    assert isinstance(first, nn.BatchNorm2d)
    weight, bias = _side_by_side(layers, "weight"), _side_by_side(layers, "bias")
    mean, var = _side_by_side(layers, "running_mean"), _side_by_side(layers, "running_var")
    assert first.momentum is not None
    out = F.batch_norm(x, mean, var, weight, bias, first.training, first.momentum, first.eps)
    if first.training:  # the statistics moved in the copies
        with torch.no_grad():
            for layer, own_mean, own_var in zip(layers, mean.chunk(len(layers)), var.chunk(len(layers)), strict=True):
                assert isinstance(layer, nn.BatchNorm2d)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                assert layer.num_batches_tracked is not None
                layer.running_mean.copy_(own_mean)
                layer.running_var.copy_(own_var)
                layer.num_batches_tracked.add_(1)
    return out


def _basic_block(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    out = F.relu(_part(blocks, "bn1", _part(blocks, "conv1", x)), inplace=True)
    out = _part(blocks, "bn2", _part(blocks, "conv2", out))
    out += _shortcut(blocks, x)
    return F.relu(out, inplace=True)


def _residual_block(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    first = blocks[0]
    assert isinstance(first, ResidualBlock)
    out = x
    for k in range(1, first.convolutions + 1):
        out = _part(blocks, f"bn{k}", _part(blocks, f"conv{k}", out))
        if k < first.convolutions:
            out = F.relu(out, inplace=True)
    if first.downsample is not None:
        x = _part(blocks, "downsample", x)
    elif x.shape[1] < out.shape[1]:
        x = x.repeat(1, len(blocks), 1, 1)
    out += x
    return F.relu(out, inplace=True)


def _part(blocks: Sequence[nn.Module], name: str, x: Tensor) -> Tensor:
    return run_at_once([block.get_submodule(name) for block in blocks], x)


def _shortcut(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return the shortcuts side by side: each pads its own channels."""
    first = blocks[0]
    assert isinstance(first, BasicBlock)
    if x.shape[1] == first.conv1.in_channels:
        return first.shortcut(x).repeat(1, len(blocks), 1, 1)
    if first.stride == 1 and not any(first.padding):
        return x
    return torch.cat([first.shortcut(part) for part in x.chunk(len(blocks), 1)], 1)
