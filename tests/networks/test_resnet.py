"""The photographs' ResNets: sizes published by torchvision, its names, and how experts are made of them."""

import copy

import pytest
import torch
from torch import nn

from longtail.networks import PHOTO_BACKBONES, build_backbone, build_expert_network, build_network
from longtail.networks.bilateral import build_bilateral_network
from longtail.networks.residual_branches import build_residual_network
from longtail.networks.resnet import Bottleneck, PhotoBasicBlock, ResNet

# num_params of torchvision's IMAGENET1K_V1 weights (its page of each model); ResNet-10 is no model of torchvision:
# 64*3*49 + 128, four basic blocks with three projections, and 512 * 1000 + 1000.
PARAMETERS = {
    "resnet10": 5_418_792,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50": 25_028_904,
}

SMALL = {"plain": {}, "bottleneck": {"bottleneck": True}, "groups": {"bottleneck": True, "groups": 4, "group_width": 4}}


def small(kind="plain", **options):
    torch.manual_seed(0)
    return ResNet((1, 2, 1, 1), **SMALL[kind], **options)


@pytest.mark.parametrize("name", PHOTO_BACKBONES)
def test_sizes_are_the_published_ones(name):
    with torch.device("meta"):
        network = build_network(name, 1000)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def test_layers_are_named_and_shaped_as_in_torchvision():
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in build_backbone("resnext50").state_dict().items()}
        basic = build_backbone("resnet18").state_dict()
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.1.running_var"] == (256,)
    assert shapes["layer2.0.conv1.weight"] == (256, 256, 1, 1)
    assert shapes["layer2.0.conv2.weight"] == (256, 8, 3, 3)
    assert shapes["layer4.2.conv3.weight"] == (2048, 1024, 1, 1)
    assert "layer1.1.downsample.0.weight" not in shapes
    # 20 convolutions, each with a batch norm of five tensors; torchvision's file has the classifier's two besides.
    assert len(basic) == 20 * 6
    assert "layer1.0.downsample.0.weight" not in basic


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_features_and_map(kind, channels):
    backbone = small(kind, in_channels=channels).eval()
    images = torch.randn(2, channels, 64, 96)
    feature_map = backbone.feature_map(images)
    assert feature_map.shape == (2, backbone.num_features, 2, 3)
    torch.testing.assert_close(backbone(images), feature_map.mean((2, 3)))
    assert (feature_map >= 0).all()


@pytest.mark.parametrize("kind", SMALL)
def test_every_parameter_gets_a_gradient_and_the_input_stays(kind):
    backbone = small(kind)
    images = torch.randn(4, 3, 64, 64)
    before = images.clone()
    backbone(images).square().sum().backward()
    assert torch.equal(images, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


@pytest.mark.parametrize(
    "block",
    [
        PhotoBasicBlock(4, 8, 2),
        PhotoBasicBlock(8, 8),
        Bottleneck(8, 4, 2),
        Bottleneck(16, 4),
        Bottleneck(8, 4, 1, 2, 32),
    ],
    ids=["basic-down", "basic", "bottleneck-down", "bottleneck", "groups"],
)
def test_blocks_equal_the_formula(block):
    """relu(bn(conv(... relu(bn(conv(x))))) + shortcut(x)), without in-place steps."""
    torch.manual_seed(0)
    block = block.double()
    convolutions = [layer for name, layer in block.named_children() if name.startswith("conv")]
    norms = [layer for name, layer in block.named_children() if name.startswith("bn")]
    x = torch.randn(3, convolutions[0].in_channels, 6, 6, dtype=torch.float64, requires_grad=True)
    y = x
    for k, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        y = norm(convolution(y.relu() if k else y))
    shortcut = x if block.downsample is None else block.downsample(x)
    expected = (y + shortcut).relu()
    out = block(x)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((values * weight).sum(), x)[0] for values in (out, expected)]
    torch.testing.assert_close(*gradients)


def test_initial_weights_are_torchvisions():
    """He's initialisation by fan-out; batch norm starts as the identity."""
    backbone = small("bottleneck")
    assert backbone.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    weight = backbone.layer4[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    norms = [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


def test_reduced_is_three_quarters_of_the_last_two_stages():
    backbone = small("bottleneck", reduced=True)
    assert backbone.num_features == 384 * 4
    assert backbone.layer3[0].conv2.weight.shape == (192, 192, 3, 3)
    assert backbone.layer2[0].conv2.weight.shape == (128, 128, 3, 3)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("cut", ["split", "split_last"])
def test_the_parts_of_a_cut_make_the_feature_map(kind, cut):
    backbone = small(kind).eval()
    images = torch.randn(2, 3, 64, 64)
    first, second = getattr(backbone, cut)()
    assert torch.equal(second(first(images)), backbone.feature_map(images))
    own = {id(p) for p in backbone.parameters()}
    assert {id(p) for part in (first, second) for p in part.parameters()} == own


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("shared", [False, True])
def test_experts_run_one_by_one_and_at_once(kind, shared, monkeypatch):
    monkeypatch.setitem(PHOTO_BACKBONES, "few", lambda channels, **more: small(kind, in_channels=channels, **more))
    one_by_one = build_expert_network("few", 5, experts=2, shared_stem=shared, batched=False).double()
    at_once = copy.deepcopy(one_by_one)
    at_once.backbone.batched = True
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for own in (False, True):
        x = torch.stack([images, images.flip(3)]) if own else images
        outputs = [network(x) for network in (one_by_one, at_once)]
        assert outputs[0].shape == (2, 4, 5)
        torch.testing.assert_close(*outputs)
    for (name, ours), (_, theirs) in zip(at_once.named_buffers(), one_by_one.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_other_expert_networks_are_made_of_them_too():
    images = torch.randn(2, 3, 64, 64)
    assert build_bilateral_network("resnet10", 5)(images).shape == (2, 5)
    assert build_residual_network("resnet10", 5)(images).shape == (3, 2, 5)
