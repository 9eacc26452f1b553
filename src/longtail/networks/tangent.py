"""A network at other parameters than its own, and its derivative along a direction of parameters in one forward pass.

Forward-mode differentiation carries, beside each value, its tangent: how it moves when the parameters move along the
direction. Torch has a rule for every layer. For the two that cost most there are shorter ways, taken here:

- A convolution is linear in its input and in its weight, so that its tangent is two convolutions. Its own value, a
  third one, is known where the same images have just passed through the network: see `ConvolutionRecord`.
- The derivative of batch normalisation with regard to its input is a symmetric matrix. The kernel that torch has for
  the backward pass is therefore also the forward rule, and reads memory half as often as the formula written out.

The one exception is attention: its fused kernels have no rule, so that it runs as products and a softmax here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


def trainable_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that train, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def call_at(network: nn.Module, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return what a network would say of images if it had other parameters.

    It runs in the mode it is in (batch statistics in training mode), on copies of its buffers: running statistics stay
    as they are.

    Args:
        network: The network.
        parameters: Values by name; parameters that are not named keep their own.
        images: (B, C, H, W).
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    out: Tensor = functional_call(network, {**parameters, **buffers}, (images,))
    return out


class ConvolutionRecord(TorchFunctionMode):
    """Keeps the results of the convolutions that run inside the block, for `derivative_along` on the same images.

    They are tensors that the backward pass keeps anyway, so the record costs no memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, and keep its result if it is a convolution."""
        result = func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            self.results.append((result, result._version))
        return result


def derivative_along(
    network: nn.Module,
    direction: Mapping[str, Tensor],
    images: Tensor,
    outputs_of: Callable[[Tensor], Tensor],
    record: ConvolutionRecord | None = None,
) -> Tensor:
    """Differentiate ``outputs_of(network(images))`` along a direction of parameters: J v, by one forward pass.

    With per-sample losses as outputs this is <v, grad L_i> for every sample i at once. In training mode L_i depends on
    the whole batch through the batch statistics, and so does its gradient. Buffers stay as they are; no graph is made.

    Args:
        network: The network, in the mode in which it is differentiated.
        direction: v, by name of the parameter; parameters that are not named stay where they are.
        images: (B, C, H, W).
        outputs_of: From logits to outputs, such as (B, C) to (B,).
        record: What `ConvolutionRecord` kept of a pass of these images at these parameters in the same precision; None
            computes it again.

    Returns:
        The derivative, of the outputs' shape.
    """
    own = dict(network.named_parameters())
    with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), _ShortRules(record):
        moving = {name: _dual(own[name].detach(), v) for name, v in direction.items()}
        outputs = outputs_of(call_at(network, moving, images))
        value, tangent = _apart(outputs)
        return torch.zeros_like(value) if tangent is None else tangent


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    out: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return out


def _apart(dual: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return value and tangent; no tangent where nothing moves."""
    value, tangent = forward_ad.unpack_dual(dual)  # type: ignore[no-untyped-call]
    return value, tangent


class _ShortRules(TorchFunctionMode):
    """Takes the short ways for convolution and batch normalisation where they apply."""

    def __init__(self, record: ConvolutionRecord | None) -> None:
        super().__init__()
        self.known = iter(() if record is None else record.results)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch on dual numbers."""
        short = None
        if func is torch.conv2d:
            value, version = next(self.known, (None, 0))
            if value is not None and value._version == version:  # nobody has overwritten it in place
                short = _convolution(value.detach(), *args, **(kwargs or {}))
        elif func is F.batch_norm:
            short = _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if short is None else short


def _convolution(
    value: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **named: Any
) -> Tensor | None:
    """Apply d (x * W + b) = x * dW + dx * W + db at a known value; None where the weight does not move."""
    x, dx = _apart(input)
    w, dw = _apart(weight)
    db = None if bias is None else _apart(bias)[1]
    if dw is None:
        return None
    tangent = torch.conv2d(x, dw, db, *geometry, **named)
    if tangent.shape != value.shape:  # the value of another convolution
        return None
    if dx is not None:
        tangent += torch.conv2d(dx, w, None, *geometry, **named)
    return _dual(value, tangent)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Apply d (g n(x) + b) = g n'(x) dx + n(x) dg + db to batch statistics; None where a part does not move."""
    if not training or weight is None or bias is None:
        return None
    (x, dx), (g, dg), (b, db) = (_apart(part) for part in (input, weight, bias))
    if dx is None or dg is None or db is None:
        return None
    value, mean, inverse_std = torch.native_batch_norm(x, g, b, running_mean, running_var, True, momentum, eps)
    through = torch.ops.aten.native_batch_norm_backward(
        dx, x, g, None, None, mean, inverse_std, True, eps, (True, False, False)
    )
    # n(x) dg + db by the same kernel: beside bfloat16 images, sums that broadcast over channels are ten times slower.
    beside = torch.native_batch_norm(x, dg, db, mean, inverse_std**-2, False, momentum, 0.0)
    return _dual(value, through[0].add_(beside[0]))
