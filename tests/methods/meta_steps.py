"""A step of the meta methods: stored cases, small batches, and the slow way of the published codes."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from longtail.networks import build_network
from longtail.types import Batch

CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parents[1] / "golden" / "meta.json").read_text())["cases"]
}
COUNTS = [50, 30, 20, 10]


def batch_of(images, targets):
    targets = torch.as_tensor(targets)
    return Batch(images, targets, torch.arange(len(targets)))


def pictures(network, dtype, size=9, classes=4, seed=0):
    """Return the network in training mode, a training and a development batch."""
    generator = torch.Generator().manual_seed(seed)

    def batch(n):
        images = torch.randn(n, 1, 8, 8, generator=generator, dtype=dtype)
        return batch_of(images, torch.randint(classes, (n,), generator=generator))

    return network.to(dtype).train(), batch(size), batch(size - 2)


def small(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return pictures(build_network("small", 4, 1), dtype, seed=seed)


def residual(dtype=torch.float64):
    torch.manual_seed(1)
    return pictures(build_network("resnet20", 4, 1), dtype, size=6)


def unreduced(criterion):
    return lambda logits, targets: criterion.sample_losses(logits, targets)


def double_backward(network, batch, dev, loss, dev_loss, coefficients, eta):
    """dL_D/da by differentiating through the step, as the published codes do: on a copy of the network."""
    twin = copy.deepcopy(network)
    parameters = dict(twin.named_parameters())
    coefficients = coefficients.detach().requires_grad_()
    total = (coefficients * loss(twin(batch.images), batch.targets)).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), create_graph=True)
    ahead = {name: p - eta * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    dev_value = dev_loss(functional_call(twin, ahead, (dev.images,)), dev.targets).mean()
    return torch.autograd.grad(dev_value, coefficients)[0]


def apart(a, b):
    return float((a - b).norm() / b.norm())


class Perceptron(nn.Module):
    """The network of the stored cases: x -> relu(l1) -> l2."""

    def __init__(self, weights):
        super().__init__()
        sizes = [torch.tensor(weights[f"{layer}.weight"]).shape for layer in ("l1", "l2")]
        self.l1, self.l2 = (nn.Linear(inputs, outputs) for outputs, inputs in sizes)
        self.double().load_state_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in weights.items()})

    def forward(self, x):
        return self.l2(F.relu(self.l1(x)))


def stored(batch):
    return batch_of(torch.tensor(batch["x"], dtype=torch.float64), batch["y"])


def check_parameters(network, expected, tolerance=1e-11):
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            parameter.detach(), torch.tensor(expected[name], dtype=torch.float64), rtol=0, atol=tolerance
        )
