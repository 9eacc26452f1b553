"""Meta-Weight-Net (Shu et al., NeurIPS 2019): a small network says from an image's loss what the image weighs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import ClassCountLoss, CrossEntropyLoss
from longtail.methods.card import Card
from longtail.methods.meta import WeightRecord, augmentation, forward, gains, need_dev
from longtail.networks import Network
from longtail.sampling import InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.training.world import processes, sum_over_processes
from longtail.types import Batch, Progress

CARD = Card(
    title="Meta-Weight-Net",
    paper="Shu et al., NeurIPS 2019",
    arxiv="1902.07379",
    idea="A network of one hidden layer maps an image's loss to its weight. It is trained one step ahead of the model, "
    "so that a step on the weighted batch helps on a small balanced development set.",
    use="Where rare classes are those with large losses. At the published learning rate of 1e-5 the weights stay near "
    "where they began; --meta-lr 1e-2 lets them move.",
    cost="about 3.6x",
)

PUBLISHED = {
    "epochs": 100,
    "batch_size": 100,
    "weight_decay": 5e-4,
    "nesterov": True,
    "warmup": 0,
    "milestones": (80, 90),
    "decay": (0.1, 0.01),
}

Form = Literal["code", "paper"]
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


def weight_of(losses: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """V(l) = sigmoid(W2 relu(W1 l + b1) + b2) of each loss, (B,), for weights named as in `WeightNet`.

    Not under autocast: steps of 1e-5 are below what bfloat16 tells apart.
    """
    with torch.autocast(losses.device.type, enabled=False):
        hidden = F.relu(F.linear(losses.unsqueeze(1), weights["hidden_weight"], weights["hidden_bias"]))
        return F.linear(hidden, weights["weight"], weights["bias"]).squeeze(1).sigmoid()


def shares(losses: Tensor, weights: Mapping[str, Tensor], form: Form) -> Tensor:
    """Return the coefficient of each loss, (B,): V_i / sum V (``code``) or V_i / B (``paper``)."""
    values = weight_of(losses, weights)
    if form == "paper":
        return values / len(values)
    total = values.sum()
    return values / total.masked_fill(total == 0, 1)


class WeightNet(nn.Module):
    """The parameters of V and their optimiser's momentum, all buffers: it is not the trainer that moves them.

    Args:
        hidden: Hidden units; 100 in the paper.
        lr: Learning rate of its steps: SGD with Nesterov momentum 0.9 and weight decay 5e-4.
    """

    def __init__(self, hidden: int = 100, lr: float = 1e-5) -> None:
        super().__init__()
        self.lr = lr
        self.shapes = {"hidden_weight": (hidden, 1), "hidden_bias": (hidden,), "weight": (1, hidden), "bias": (1,)}
        for name, shape in self.shapes.items():
            self.register_buffer(name, torch.zeros(shape))
            self.register_buffer(f"{name}_momentum", torch.zeros(shape))

    def draw(self) -> None:
        """Draw weights and biases as torch's linear layers do: U(-1, 1) / sqrt(inputs)."""
        for name in self.shapes:
            inputs = 1 if name.startswith("hidden") else self.shapes["weight"][1]
            nn.init.uniform_(getattr(self, name), -(inputs**-0.5), inputs**-0.5)

    def values(self) -> dict[str, Tensor]:
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in self.shapes}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Take one step down the given gradients."""
        for name, gradient in gradients.items():
            value, momentum = getattr(self, name), getattr(self, f"{name}_momentum")
            descent = gradient + WEIGHT_DECAY * value
            momentum.mul_(MOMENTUM).add_(descent)
            value.sub_(descent + MOMENTUM * momentum, alpha=self.lr)

    def extra_repr(self) -> str:
        """Describe size and learning rate."""
        return f"hidden={self.shapes['weight'][1]}, lr={self.lr}"


class MetaWeightNetObjective(nn.Module):
    """sum_i V(L_i) L_i / sum_j V(L_j), V trained one step ahead (Shu et al., NeurIPS 2019).

    theta~(Theta) = theta - eta grad_theta S, with S the weighted loss of the batch under the parameters Theta of V and
    eta the learning rate. With a_i = dS/dL_i the gradient is sum_i a_i grad L_i, and

        dL_D(theta~)/dTheta = -eta sum_i <grad L_D(theta~), grad L_i(theta)> da_i/dTheta.

    In the official code V sees the loss with its gradient in the look-ahead step (``code``: a_i has a part from V's
    slope and from the normaliser) and without it in the real one.

    Args:
        criterion: L, also L_D.
        net: V.
        form: ``code``: V normalised by its sum over the batch; ``paper``: divided by the batch size, and a_i = V_i / B.
        record: What the images weighed, relative to 1 / B.

    Source: github.com/xjtushujun/Meta-weight-net_class-imbalance.
    """

    def __init__(self, criterion: ClassCountLoss, net: WeightNet, form: Form, record: WeightRecord) -> None:
        super().__init__()
        self.criterion = criterion
        self.net = net
        self.form: Form = form
        self.record = record

    def prepare(self, before: Network, network: Network) -> None:
        """Draw the weighting network, under the run's seed."""
        self.net.draw()

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the training batch, the first; the last is the development batch."""
        passed = forward(network, batches[0], self.criterion)
        losses = passed.losses.detach()
        moving = {name: value.detach().to(losses.dtype).requires_grad_() for name, value in self.net.values().items()}
        coefficients = self.coefficients(losses, moving) / processes()
        gain = gains(
            network,
            passed,
            batches[-1],
            self.criterion,
            self.criterion,
            coefficients=coefficients.detach(),
            eta=progress.lr,
        )
        ahead = -progress.lr * (gain * coefficients).sum()
        gradients = sum_over_processes(torch.autograd.grad(ahead, list(moving.values())))
        self.net.step(dict(zip(moving, gradients, strict=True)))
        weights = shares(losses, self.net.values(), self.form)
        self.record.add(progress.epoch, batches[0].targets, len(losses) * weights, len(losses) * weights)
        return (weights * passed.losses).sum()

    def coefficients(self, losses: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Return a_i = dS/dL_i, (B,), as a function of V's parameters."""
        if self.form == "paper":
            return shares(losses, weights, self.form)
        seen = losses.clone().requires_grad_()
        total = (shares(seen, weights, self.form) * seen).sum()
        return torch.autograd.grad(total, seen, create_graph=True)[0]

    def extra_repr(self) -> str:
        """Describe the form."""
        return f"form={self.form!r}"


def meta_weight_net(context: Context, *, form: Form = "code", meta_lr: float = 1e-5, hidden: int = 100) -> Recipe:
    """L = sum_i V(CE_i; Theta) CE_i / sum_j V_j, with Theta one SGD step ahead on L_D(theta~(Theta)).

    Under ``published`` the class-imbalance code's 100 epochs of batches of 100, x 0.1 after 80 and 90, weight decay
    5e-4, Nesterov momentum, no warm-up, and reflecting crops.

    Args:
        context: Class counts, budget and development set.
        form: ``code``: weights divided by their sum, and the look-ahead step differentiates V by the loss too, as in
            the code for class imbalance; ``paper``: L = 1 / B sum_i V(CE_i) CE_i with the loss that V sees held fixed,
            as in the code for noisy labels.
        meta_lr: Learning rate of V; 1e-5 in the code for class imbalance.
        hidden: Hidden units of V.

    Raises:
        UsageError: There is no development set, or a number is out of range.
    """
    need_dev(context, "meta-weight-net")
    if not (meta_lr >= 0 and hidden >= 1):
        raise UsageError(f"meta-weight-net: meta_lr is {meta_lr} and hidden {hidden}; they must be >= 0 and >= 1")
    record = WeightRecord(context.num_classes, context.budget.epochs)
    criterion = CrossEntropyLoss(context.class_counts)
    stage = context.stage(MetaWeightNetObjective(criterion, WeightNet(hidden, meta_lr), form, record))
    return Recipe(stages=(replace(stage, augment=augmentation(context), dev=(InstanceSampling(),)),))
