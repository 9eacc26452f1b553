import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from longtail import UsageError
from longtail.networks import (
    BACKBONES,
    CosineHead,
    ExpertBackbone,
    ExpertHead,
    FeatureBackbone,
    build_expert_network,
    build_network,
)
from longtail.networks.batched import run_at_once

GOLDEN = [
    case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "networks.json").read_text())["cases"]
    if case["id"].startswith("ride_")
]
SHAPES = [
    pytest.param({"shared_stem": False}, id="independent"),
    pytest.param({"shared_stem": True}, id="shared"),
    pytest.param({"shared_stem": True, "reduced": True}, id="ride"),
]


def built(backbone="small", classes=5, channels=3, **options):
    torch.manual_seed(0)
    network = build_expert_network(backbone, classes, channels, **options)
    return network.to(memory_format=torch.channels_last)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def images(*leading, side=8, channels=3):
    values = torch.randn(*leading, channels, side, side, generator=torch.Generator().manual_seed(1))
    return values if len(leading) > 1 else values.contiguous(memory_format=torch.channels_last)


def multiplications(network, side=32):
    """Count the multiplications of convolutions and heads for one image."""
    count = 0

    def convolution(layer, _, output):
        nonlocal count
        count += output[0].numel() * layer.weight[0].numel()

    def head(layer, _, output):
        nonlocal count
        count += layer.weight.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
        elif isinstance(module, CosineHead):
            module.register_forward_hook(head)
    with torch.no_grad():
        network.eval()(images(1, side=side))
    return count


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"])
def test_ride_has_the_parameters_and_multiplications_of_the_published_code(case):
    hyper = case["hyper"]
    network = build_expert_network(
        "resnet32",
        hyper["num_classes"],
        experts=hyper["num_experts"],
        head=CosineHead,
        scale=hyper["s"],
        shared_stem=True,
        reduced=hyper["reduce_dimension"],
    )
    assert parameters(network) == case["output"]["params"]
    assert multiplications(network) == case["output"]["macs_total"]


def test_independent_experts_have_as_many_parameters_as_so_many_networks():
    assert parameters(build_expert_network("resnet32", 100)) == 3 * 470_004


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("options", SHAPES)
def test_shapes(backbone, options):
    network = built(backbone, experts=2, **options)
    d = network.num_features
    assert network.backbone.feature_map(images(4)).shape == (2, 4, d, 2, 2)
    assert network.features(images(4)).shape == (2, 4, d)
    assert network(images(4)).shape == (2, 4, 5)
    assert network(images(2, 4)).shape == (2, 4, 5)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("shared_stem", [False, True])
def test_one_expert_is_the_plain_network_bit_for_bit(backbone, shared_stem):
    torch.manual_seed(0)
    plain = build_network(backbone, 5, 3).to(memory_format=torch.channels_last)
    one = built(backbone, experts=1, shared_stem=shared_stem)
    for a, b in zip(plain.parameters(), one.parameters(), strict=True):
        assert torch.equal(a, b)
    expected, logits = plain(images(6)), one(images(6))
    assert torch.equal(logits[0], expected)
    expected.square().sum().backward()
    logits.square().sum().backward()
    for a, b in zip(plain.parameters(), one.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_the_first_expert_does_not_depend_on_how_many_there_are():
    two, three = built(experts=2), built(experts=3)
    for e in range(2):
        for a, b in zip(two.backbone.experts[e].parameters(), three.backbone.experts[e].parameters(), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(two.head.heads[e].weight, three.head.heads[e].weight)
    assert not torch.equal(two.head.heads[0].weight, two.head.heads[1].weight)


@pytest.mark.parametrize("options", SHAPES)
def test_identical_experts_answer_alike(options):
    logits = built(identical=True, **options)(images(6))
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    logits = built(**options)(images(6))
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("backbone", ["resnet20", "small"])
@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("own", [False, True], ids=["one-batch", "own-batches"])
def test_both_ways_of_running_agree(backbone, options, own):
    """Logits, gradients and moving statistics, in float64 so that only a mistake can tell them apart."""
    one_by_one = built(backbone, **options, batched=False).double()
    at_once = copy.deepcopy(one_by_one)
    at_once.backbone.batched = True
    x = (images(3, 4) if own else images(4)).double()
    for mode in (True, False):
        outputs = [network.train(mode)(x) for network in (one_by_one, at_once)]
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
        for logits in outputs:
            (logits * torch.arange(1, 6)).square().mean().backward()
    maps = [network.backbone.feature_map(x) for network in (one_by_one, at_once)]
    torch.testing.assert_close(*maps, rtol=1e-10, atol=1e-10)
    ours = dict(at_once.named_parameters())
    for name, parameter in one_by_one.named_parameters():
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-8, atol=1e-10, msg=name)
    ours = dict(at_once.named_buffers())
    for name, buffer in one_by_one.named_buffers():
        torch.testing.assert_close(ours[name], buffer, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("options", SHAPES)
def test_both_ways_agree_to_float32_rounding_and_take_bfloat16(options):
    one_by_one = built("resnet32", **options, batched=False)
    at_once = copy.deepcopy(one_by_one)
    at_once.backbone.batched = True
    torch.testing.assert_close(at_once(images(8)), one_by_one(images(8)), rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = at_once(images(8))
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, one_by_one(images(8)), rtol=0.1, atol=0.1)


def test_each_expert_sees_its_own_batch():
    network = built(experts=2, batched=False).eval()
    x = images(2, 4)
    logits = network(x)
    for e in range(2):
        torch.testing.assert_close(logits[e], network(x[e])[e], rtol=1e-6, atol=1e-6)


def test_no_gradient_passes_between_independent_experts():
    network = built(experts=2)
    network(images(2, 4))[0].square().sum().backward()
    assert all(p.grad is not None for p in network.backbone.experts[0].parameters())
    assert all(p.grad is None or not p.grad.any() for p in network.backbone.experts[1].parameters())
    assert not network.head.heads[1].weight.grad.any()


def test_batch_norm_statistics_are_apart():
    network = built(experts=2, identical=True)
    x = images(2, 4)
    network(torch.stack([x[0], 3 * x[1]]))
    first, second = (expert.layers[1].running_var for expert in network.backbone.experts)
    assert not torch.allclose(first, second)


def test_the_scale_multiplies_the_logits():
    logits = built(head=CosineHead)(images(3))
    assert logits.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(built(head=CosineHead, scale=30.0)(images(3)), 30 * logits)


def test_a_state_is_the_same_whichever_way_the_experts_run():
    network = built(batched=True)
    built(batched=False).load_state_dict(network.state_dict())


def test_refusals():
    with pytest.raises(UsageError, match="resnet"):
        build_expert_network("resnet33", 5)
    with pytest.raises(ValueError, match="one expert or more"):
        build_expert_network("small", 5, experts=0)
    with pytest.raises(ValueError, match="one head or more"):
        ExpertHead([])
    with pytest.raises(ValueError, match="2 batches for 3 experts"):
        built()(images(2, 4))
    with pytest.raises(ValueError, match="features of 2 experts for 3 heads"):
        built().head(torch.zeros(2, 4, 64))
    with pytest.raises(NotImplementedError, match="Linear cannot run"):
        run_at_once([nn.Linear(2, 2), nn.Linear(2, 2)], torch.zeros(1, 2))
    with pytest.raises(ValueError, match="one expert or more"):
        ExpertBackbone([])


@pytest.mark.parametrize("part", ["split", "split_last"])
def test_a_backbone_that_cannot_be_divided_is_wrong_use(part):
    with pytest.raises(UsageError, match=r"FeatureBackbone does not say .*\n.*backbone of this library"):
        getattr(FeatureBackbone(4), part)()
