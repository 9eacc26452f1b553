import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from longtail.networks import BasicBlock, CifarResNet, CosineHead, LinearHead, Network, build_network, pool

GOLDEN = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "networks.json").read_text())["cases"]
    if case["id"].startswith("ldam_resnet32")
}


def fill(network: Network) -> None:
    """Overwrite all parameters as the golden case says: one random stream in the order of the official code."""
    stream = np.random.RandomState(0)
    with torch.no_grad():
        for parameter in network.parameters():
            # The official cosine head stores its weight as (d, C).
            transposed = isinstance(network.head, CosineHead) and parameter is network.head.weight
            shape = tuple(parameter.shape)[::-1] if transposed else tuple(parameter.shape)
            values = torch.from_numpy(stream.randn(*shape).astype(np.float32) * np.float32(0.05))
            parameter.copy_(values.T if transposed else values)


@pytest.mark.parametrize("case", GOLDEN.values(), ids=GOLDEN.keys())
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_logits_equal_the_official_codes(case, memory_format):
    head = CosineHead if case["hyper"]["use_norm"] else LinearHead
    network = build_network("resnet32", case["hyper"]["num_classes"], head=head).eval()
    fill(network)
    network = network.to(memory_format=memory_format)
    images = torch.from_numpy(np.random.RandomState(1).randn(2, 3, 32, 32).astype(np.float32))
    with torch.no_grad():
        logits = network(images.contiguous(memory_format=memory_format))
        features = network.features(images)
    expected = torch.tensor(case["output"]["logits_float32_forward"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        features[0], torch.tensor(case["output"]["pooled_feature_row0_float64"]), rtol=0, atol=1e-6
    )
    assert sum(p.numel() for p in network.parameters()) == case["output"]["params"]


def test_parameters_are_named_and_ordered_as_in_the_official_code():
    expected = GOLDEN["ldam_resnet32_c10_linear"]["inputs"]["parameter_names_and_shapes"]
    network = build_network("resnet32", 10)
    names = [name.removeprefix("backbone.").replace("head.", "linear.") for name, _ in network.named_parameters()]
    assert [[name, list(p.shape)] for name, p in zip(names, network.parameters(), strict=True)] == expected


@pytest.mark.parametrize(("name", "convolutions"), [("resnet20", 19), ("resnet32", 31), ("resnet44", 43)])
def test_depth(name, convolutions):
    layers = [m for m in build_network(name, 10).modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(layers) == convolutions


def test_resnet32_for_100_classes_has_470004_parameters():
    assert sum(p.numel() for p in build_network("resnet32", 100).parameters()) == 470_004


@pytest.mark.parametrize("side", [8, 9])
def test_shortcut_subsamples_and_pads_half_the_new_channels_on_each_side(side):
    x = torch.randn(2, 16, side, side)
    shortcut = BasicBlock(16, 32, stride=2).shortcut(x)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert not shortcut[:, :8].any()
    assert not shortcut[:, 24:].any()


def test_block_equals_the_formula_without_in_place_steps():
    torch.manual_seed(0)
    block = BasicBlock(4, 8, stride=2).double()
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    inner = F.relu(block.bn1(block.conv1(x)))
    plain = F.relu(block.bn2(block.conv2(inner)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
    weight = torch.randn_like(plain)
    (expected,) = torch.autograd.grad((plain * weight).sum(), x)
    out = block(x)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(gradient, expected)


def test_forward_leaves_its_input_alone():
    x = torch.randn(2, 16, 4, 4)
    before = x.clone()
    BasicBlock(16, 16)(x)
    assert torch.equal(x, before)


def test_convolutions_start_kaiming_normal():
    torch.manual_seed(0)
    weight = CifarResNet(5).layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch.func.jvp's own
def test_forward_mode_derivative_passes_through_the_network():
    """Meta-gradients need J d (forward mode); it must agree with backward mode: u . (J d) = (u J) . d."""
    torch.manual_seed(0)
    network = build_network("resnet20", 5).double().eval()
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def forward(values):
        return torch.func.functional_call(network, values, images)

    logits, tangent = torch.func.jvp(forward, (parameters,), (direction,))
    weight = torch.randn_like(logits)
    (gradient,) = torch.func.vjp(forward, parameters)[1](weight)
    backward = sum((gradient[name] * direction[name]).sum() for name in parameters)
    torch.testing.assert_close((weight * tangent).sum(), backward)


def test_reduced_precision_ends_at_the_pooling():
    network = build_network("resnet20", 5)
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        feature_map = network.backbone.feature_map(images)
        assert feature_map.dtype == torch.bfloat16
        assert feature_map.is_contiguous(memory_format=torch.channels_last)
        assert network.features(images).dtype == torch.float32


def test_pool_averages_over_positions_and_takes_leading_dimensions():
    maps = torch.arange(2 * 3 * 4 * 2 * 2, dtype=torch.float64).view(2, 3, 4, 2, 2)
    assert torch.equal(pool(maps), maps.mean((-2, -1)))
    assert pool(maps).dtype == torch.float64
