"""Meta-Weight-Net: the published step, and its gradient by the double backward."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from meta_steps import CASES, COUNTS, Perceptron, check_parameters, small, stored, unreduced
from recipes import recipe_of
from torch import nn
from torch.func import functional_call

from longtail.augment import RandomCrop
from longtail.losses import CrossEntropyLoss
from longtail.methods.meta import WeightRecord
from longtail.methods.meta_weight_net import MetaWeightNetObjective, WeightNet, shares, weight_of
from longtail.types import Progress


def weight_net(values, **options):
    net = WeightNet(len(values["linear1.bias"]), **options).double()
    names = {
        "hidden_weight": "linear1.weight",
        "hidden_bias": "linear1.bias",
        "weight": "linear2.weight",
        "bias": "linear2.bias",
    }
    net.load_state_dict({k: torch.tensor(values[v], dtype=torch.float64) for k, v in names.items()}, strict=False)
    return net, names


def test_the_weighting_network_is_that_of_meta_weight_net():
    case = CASES["mwnet_v_weights_noisy"]
    net, _ = weight_net(case["inputs"]["v_weights"])
    losses = torch.tensor(case["inputs"]["losses"], dtype=torch.float64)
    expected = torch.tensor(case["output"]["v"], dtype=torch.float64)
    torch.testing.assert_close(weight_of(losses, net.values()), expected, rtol=0, atol=1e-11)
    expected = torch.tensor(case["output"]["v_sum_normalised"], dtype=torch.float64)
    torch.testing.assert_close(shares(losses, net.values(), "code"), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(shares(losses, net.values(), "paper"), weight_of(losses, net.values()) / 8)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_weighting_network_is_not_rounded_under_autocast(form):
    net = WeightNet()
    net.draw()
    losses = torch.rand(8)
    expected = shares(losses, net.values(), form)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(shares(losses, net.values(), form), expected)


@pytest.mark.parametrize("case_id", ["mwnet_step_ci_epoch0", "mwnet_step_ci_epoch79"])
def test_a_step_is_that_of_meta_weight_net(case_id):
    case = CASES[case_id]
    hyper, inputs, step = case["hyper"], case["inputs"], case["output"]["step"]
    network = Perceptron(inputs["weights"])
    net, names = weight_net(inputs["v_weights"], lr=1e-5)
    objective = MetaWeightNetObjective(CrossEntropyLoss(COUNTS), net, "code", WeightRecord(4, 1))
    batches = stored(inputs["train_batch"]), stored(inputs["dev_batch"])
    loss = objective(network, batches, Progress(0, 1, lr=hyper["eta_virtual"]))
    assert loss.item() == pytest.approx(step["train_loss"], rel=1e-11)
    for name, value in net.values().items():
        expected = torch.tensor(step["V_after"][names[name]], dtype=torch.float64)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        objective.record.weight.sum(), torch.tensor(6.0, dtype=torch.float64)
    )  # relative to 1 / B
    optimizer = torch.optim.SGD(network.parameters(), hyper["lr_real"], 0.9, 0, 5e-4, nesterov=True)
    loss.backward()
    optimizer.step()
    check_parameters(network, step["params"])


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_weighting_network_s_gradient_is_the_double_backward_s(form):
    network, batch, dev = small()
    torch.manual_seed(3)
    net = WeightNet(5, lr=1.0).double()
    net.draw()
    before = {name: value.clone().requires_grad_() for name, value in net.values().items()}
    loss, eta = unreduced(CrossEntropyLoss(COUNTS)), 0.1
    twin = copy.deepcopy(network)
    parameters = dict(twin.named_parameters())
    losses = loss(twin(batch.images), batch.targets)
    total = (shares(losses if form == "code" else losses.detach(), before, form) * losses).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), create_graph=True)
    ahead = {name: p - eta * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    slow = torch.autograd.grad(
        loss(functional_call(twin, ahead, (dev.images,)), dev.targets).mean(), list(before.values())
    )
    objective = MetaWeightNetObjective(CrossEntropyLoss(COUNTS), net, form, WeightRecord(4, 1))
    objective(network, (batch, dev), Progress(0, 1, lr=eta))
    for (name, value), gradient in zip(net.values().items(), slow, strict=True):
        descent = (gradient + 5e-4 * before[name]).detach()  # the first step of Nesterov momentum
        torch.testing.assert_close(before[name].detach() - value, 1.9 * descent, rtol=1e-8, atol=1e-12)


def test_steps_of_the_weighting_network_are_those_of_torch_s_sgd():
    """The official code: torch.optim.SGD(vnet.params(), 1e-5, momentum=0.9, nesterov=True, weight_decay=5e-4)."""
    torch.manual_seed(0)
    net = WeightNet(5, lr=0.1).double()
    net.draw()
    twins = {name: nn.Parameter(value.clone()) for name, value in net.values().items()}
    optimizer = torch.optim.SGD(twins.values(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(4):
        gradients = {name: torch.randn_like(value) for name, value in twins.items()}
        net.step(gradients)
        for name, twin in twins.items():
            twin.grad = gradients[name]
        optimizer.step()
        for name, twin in twins.items():
            torch.testing.assert_close(net.values()[name], twin.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("protocol", "padding"), [("published", "reflect"), ("common", "zero")])
def test_published_crops_are_padded_by_reflection(protocol, padding, cifar_like):
    data = replace(cifar_like, dev=cifar_like.train.subset(torch.arange(100)))
    (stage,) = recipe_of("meta-weight-net", data, protocol).stages
    assert RandomCrop(4, padding) in stage.augment.transforms
