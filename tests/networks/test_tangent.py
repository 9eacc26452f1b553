"""The derivative along a direction of parameters against torch's own and against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def double_backward(network, direction, images):
    """J v of the logits without forward mode: the derivative of u -> J^T u along v, with autograd alone."""
    parameters = [p for name, p in network.named_parameters() if name in direction]
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative either
        logits = network(images)
    dual = torch.zeros_like(logits, requires_grad=True)
    back = torch.autograd.grad(logits, parameters, dual, create_graph=True)
    (along,) = torch.autograd.grad(back, dual, list(direction.values()))
    return along


class Attention(nn.Module):
    """Patches, one layer of attention as timm's vision transformers have it, and a classifier of their mean."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, 3)
        self.heads = heads

    def forward(self, images):
        x = self.norm(self.patches(images).flatten(2).transpose(1, 2))  # (B, N, d)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, d / heads)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize("network", [Attention(), nn.TransformerEncoderLayer(16, 4, 16, 0.0, batch_first=True)])
def test_attention_has_a_derivative_though_its_fused_kernel_has_none(network):
    torch.manual_seed(0)
    images = torch.randn(5, 1, 8, 8) if isinstance(network, Attention) else torch.randn(5, 9, 16)
    network.train()
    direction = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    record = ConvolutionRecord()
    with record:
        network(images)
    fast = derivative_along(network, direction, images, lambda z: z, record)
    assert apart(fast, double_backward(network, direction, images)) < 1e-5


class Keywords(nn.Module):
    """Three convolutions of one shape, the middle one called with keywords, and one of another size in the end."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.third = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(2, 2, 3)

    def forward(self, images):
        middle = self.middle
        x = self.first(images).sigmoid()
        x = F.conv2d(input=x, weight=middle.weight, bias=middle.bias, padding=1).sigmoid()
        x = self.third(x).sigmoid()
        return F.conv2d(x, self.last.weight, self.last.bias, stride=2).flatten(1)


def test_a_convolution_called_with_keywords_keeps_its_place_in_the_record():
    torch.manual_seed(0)
    network, images = Keywords().double(), torch.randn(4, 2, 6, 6, dtype=torch.float64)
    direction = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    record = ConvolutionRecord()
    with record:
        network(images)
    slow = double_backward(network, direction, images)
    assert apart(derivative_along(network, direction, images, lambda z: z, record), slow) < 1e-12
    # A record that is out of step is not taken where the sizes tell.
    record.results = record.results[-1:] + record.results[:-1]
    record.results[1:] = [(torch.zeros(4, 2, 5, 5, dtype=torch.float64), 0)] * 3
    assert apart(derivative_along(network, direction, images, lambda z: z, record), slow) < 1e-12
