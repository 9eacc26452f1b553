"""The derivative along a direction of parameters against torch's own and against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longtail.networks import build_network
from longtail.networks.tangent import ConvolutionRecord, call_at, derivative_along


def apart(a, b):
    return float((a - b).norm() / b.norm())


def test_the_shorter_rules_are_torch_s_own_derivative():
    torch.manual_seed(1)
    network = build_network("resnet20", 4, 1).double().train()
    images = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    direction = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    record = ConvolutionRecord()
    with record:
        network(images)
    assert len(record.results) == 19
    _, tangent = torch.func.jvp(
        lambda parameters: call_at(network, parameters, images),
        ({name: p.detach() for name, p in network.named_parameters()},),
        (direction,),
    )
    for known in (None, record):
        assert apart(derivative_along(network, direction, images, lambda z: z, known), tangent.detach()) < 1e-12
    # A direction that leaves some parameters where they are, batch norm among them.
    part = {name: v for name, v in direction.items() if "layer2" in name and "bn1" not in name}
    _, tangent = torch.func.jvp(
        lambda parameters: call_at(network, parameters, images),
        ({name: dict(network.named_parameters())[name].detach() for name in part},),
        (part,),
    )
    assert apart(derivative_along(network, part, images, lambda z: z, record), tangent.detach()) < 1e-12


@pytest.mark.parametrize("train", [True, False])
def test_a_layer_that_overwrites_a_convolution_and_one_with_a_bias_are_followed(train):
    torch.manual_seed(0)
    network = (
        nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 4, 3, 2, bias=True),
            nn.BatchNorm2d(4),
            nn.BatchNorm2d(4, affine=False),
            nn.Flatten(),
            nn.Linear(36, 5),
        )
        .double()
        .train(train)
    )
    images = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    direction = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    record = ConvolutionRecord()
    with record:
        logits = network(images)
    fast = derivative_along(network, direction, images, lambda z: z, record)
    moved = {name: p.detach() + 1e-6 * direction[name] for name, p in network.named_parameters()}
    back = {name: p.detach() - 1e-6 * direction[name] for name, p in network.named_parameters()}
    with torch.no_grad():
        slow = (call_at(network, moved, images) - call_at(network, back, images)) / 2e-6
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-7)
    logits.sum().backward()  # its graph is whole
