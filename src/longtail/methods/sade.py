"""SADE: self-supervised aggregation of diverse experts (Zhang et al., NeurIPS 2022): the experts."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import ClassCountLoss, cross_entropy_loss
from longtail.losses.checks import ClassCounts, check_class_counts
from longtail.methods.card import Card
from longtail.methods.inference import AverageExperts
from longtail.methods.rotation import rotating
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import CosineHead, build_expert_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.types import Batch, Progress

CARD = Card(
    title="Self-supervised aggregation of diverse experts",
    paper="Zhang et al., NeurIPS 2022",
    arxiv="2107.09249",
    idea="Three experts on shared first layers, each taught for a test of its own: long-tailed as the training set, "
    "balanced, and with the tail in front. The test averages them, or finds weights for them without labels.",
    use="Where it is not known how often each class occurs in use. As good as an ensemble on a balanced test.",
    cost="1.5x to 1.9x",
)

PUBLISHED = {"weight_decay": 5e-4, "nesterov": True, "decay": (0.1, 0.01)}
_COSINE = {"warmup": 0, "schedule": "cosine", "milestones": (), "decay": ()}
_STEPS = {"warmup": 5, "schedule": "step", "milestones": (60, 80), "decay": (0.1, 0.01)}
PUBLISHED_ON = {
    "imagenet-lt": {**_COSINE, "epochs": 180, "batch_size": 64, "lr": 0.025, "weight_decay": 5e-4, "nesterov": True},
    "inat18": {**_STEPS, "epochs": 100, "batch_size": 512, "lr": 0.2, "weight_decay": 2e-4, "nesterov": True},
}

PRIOR_FLOOR = 1e-9
"""What the official code adds to a prior before it takes the logarithm."""


def inverted_counts(class_counts: ClassCounts) -> Tensor:
    """Give the largest class the count of the smallest, the second largest that of the second smallest, and so on.

    Of equal counts the earlier label ranks as the larger, so that a descending list is read backwards. (In the official
    code the order of equal counts is that of an unstable sort.)

    Args:
        class_counts: Training images per class, C whole numbers >= 0.

    Returns:
        The same counts on other classes, (C,), int64.
    """
    descending, order = check_class_counts(class_counts).sort(descending=True, stable=True)
    return descending.flip(0)[order.argsort()]


def expert_shifts(class_counts: ClassCounts, tau: float) -> Tensor:
    """What each expert's logits are shifted by in training: 0; log pi; log pi - tau log pi_inverted.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        tau: How far the third expert leans to the tail.

    Returns:
        Shifts, (3, C), float64.
    """
    counts = check_class_counts(class_counts)
    prior, inverted = ((n.double() / counts.sum() + PRIOR_FLOOR).log() for n in (counts, inverted_counts(class_counts)))
    return torch.stack([torch.zeros_like(prior), prior, prior - tau * inverted])


class ShiftedLoss(ClassCountLoss):
    """Cross-entropy of shifted logits: -log softmax(z + shift)_y.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        shift: Added to the logits, (C,).
    """

    shift: Tensor

    def __init__(self, class_counts: ClassCounts, shift: Tensor) -> None:
        super().__init__(class_counts)
        self.register_per_class("shift", shift)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample, (B,)."""
        return cross_entropy_loss(logits + self.shift.to(logits.dtype), targets)


class SADEObjective(nn.Module):
    """The sum of three experts' losses: for a long-tailed test, a balanced one, and one with the tail in front.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        tau: How far the third expert leans to the tail.

    Source: github.com/Vanint/SADE-AgnosticLT, model/loss.py.
    """

    def __init__(self, class_counts: ClassCounts, tau: float) -> None:
        super().__init__()
        self.tau = tau
        shifts = expert_shifts(class_counts, tau)
        self.experts = nn.ModuleList(SupervisedObjective(ShiftedLoss(class_counts, shift)) for shift in shifts)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        return self.loss(network(batches[0].images), batches[0])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of a batch's expert logits (3, B, C)."""
        losses = [
            expert.loss(own, batch)  # type: ignore[operator]
            for expert, own in zip(self.experts, logits, strict=True)
        ]
        return torch.stack(losses).sum()

    def extra_repr(self) -> str:
        """Say tau."""
        return f"tau={self.tau}"


def sade(context: Context, *, tau: float | None = None, reduced: bool = True, s: float = 30.0) -> Recipe:
    """L = CE(z_1, y) + CE(z_2 + log pi, y) + CE(z_3 + log pi - tau log pi_inv, y); the test averages z.

    pi are the class frequencies, pi_inv the same with largest and smallest exchanged, and so on. Under ``published`` on
    CIFAR also the code's weight decay 5e-4, Nesterov momentum, drops to a tenth and rotation by up to 15 degrees. For
    weights found on unlabelled test images see `longtail.evaluation.ExpertAggregation` and
    ``longtail evaluate --aggregate``.

    Args:
        context: Class counts and budget.
        tau: How far the third expert leans to the tail; default 2, the code's on CIFAR and ImageNet-LT, and under
            ``published`` on iNaturalist 2018 1, the code's there and on Places-LT.
        reduced: Give each expert three quarters of the channels behind the shared layers; off in the authors' runs on
            CIFAR-10.
        s: Scale of the cosines, part of the network.

    Raises:
        UsageError: A number is out of range.
    """
    if tau is None:
        tau = 1.0 if context.protocol == "published" and context.dataset == "inat18" else 2.0
    if not (0 <= tau < math.inf and 0 < s < math.inf):
        raise UsageError(f"sade: tau is {tau} and s {s}; they must be finite, at least 0 and above 0")
    stage = context.stage(SADEObjective(context.class_counts, tau))
    if context.protocol == "published" and context.on_cifar:
        stage = replace(stage, augment=rotating(stage.augment))
    network = partial(build_expert_network, experts=3, head=CosineHead, scale=s, shared_stem=True, reduced=reduced)
    return Recipe(stages=(stage,), network=network, inference=AverageExperts())
