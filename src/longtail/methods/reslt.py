"""ResLT: residual learning for long-tailed recognition (Cui et al., TPAMI 2023)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import cross_entropy_loss
from longtail.losses.base import upcast
from longtail.methods.card import Card
from longtail.methods.class_groups import FEW_CLASSES, NestedObjective, nested_classes
from longtail.methods.decoupling import warm_stage
from longtail.networks.residual_branches import build_residual_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Residual learning for long-tailed recognition",
    paper="Cui et al., TPAMI 2023",
    arxiv="2101.10633",
    idea="Three outputs that are added: one learns all classes, one what medium and tail classes need beside it, one "
    "what the tail needs. They share everything but a batch norm.",
    use="A gain for medium and tail at no cost in speed or size. Its weight beta has to fit the imbalance.",
)

PUBLISHED = {"weight_decay": 5e-4, "nesterov": True, "decay": (0.1, 0.01)}

FLOOR = 1e-7
"""What the official code adds to a probability before it takes the logarithm of the branches' own losses."""

CLASSIFIER_BETA = 0.3
"""beta of the classifier stage under H2T in its released configuration (CIFAR-10, IF100; without H2T 0.5)."""

# beta by imbalance factor in the authors' configurations of CIFAR-10 and CIFAR-100.
_LIKE_CIFAR_10 = {10: 0.96, 50: 0.998, 100: 0.998}
_LIKE_CIFAR_100 = {10: 0.72, 50: 0.99, 100: 0.995}


def beta_for(class_counts: tuple[int, ...]) -> float:
    """Return the authors' beta of CIFAR-10 (up to 31 classes) or CIFAR-100, by imbalance factor.

    Between the factors 10, 50 and 100 it is interpolated, the logarithm of 1 - beta on that of the factor; outside it
    is that of the nearest.
    """
    table = _LIKE_CIFAR_10 if len(class_counts) <= FEW_CLASSES else _LIKE_CIFAR_100
    present = [n for n in class_counts if n]
    factor = min(max(max(present) / min(present), min(table)), max(table))
    low = max(known for known in table if known <= factor)
    high = min(known for known in table if known >= factor)
    t = math.log(factor / low) / math.log(high / low) if high > low else 0.0
    return 1 - math.exp((1 - t) * math.log(1 - table[low]) + t * math.log(1 - table[high]))


def residual_loss(
    logits: Tensor, targets: Tensor, classes: Tensor, sample_weights: Tensor | None = None, *, beta: float
) -> Tensor:
    """The loss of ResLT: beta ICE + (1 - beta) FCE.

    ICE is the mean of -log(softmax(z_k)_y + 1e-7) over all pairs of a branch k and an image of its classes, FCE the
    cross-entropy of the sum of the branches.

    Args:
        logits: Logits of the branches, (3, B, C).
        targets: Class indices, (B,), int64.
        classes: Which classes each branch learns, (3, C), bool; the first learns all.
        sample_weights: Weight of each image, (B,); None for 1.
        beta: Weight of the branches' own losses, in [0, 1].

    Returns:
        Scalar.
    """
    logits = upcast(logits)
    weights = torch.ones_like(logits[0, :, 0]) if sample_weights is None else sample_weights.to(logits.dtype)
    own = logits.softmax(-1).gather(-1, targets.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    members = classes[:, targets] * weights
    individual = -((own + FLOOR).log() * members).sum() / members.sum()
    fused = (cross_entropy_loss(logits.sum(0), targets) * weights).sum() / weights.sum()
    return beta * individual + (1 - beta) * fused


class SumBranches(nn.Module):
    """The answer of ResLT: the sum of its branches' logits."""

    def forward(self, logits: Tensor) -> Tensor:
        """Map branch logits (3, B, C) to logits (B, C)."""
        return logits.sum(0)


def reslt(context: Context, *, beta: float | None = None, head: int | None = None, tail: int | None = None) -> Recipe:
    """L = beta ICE + (1 - beta) FCE, FCE = CE(z_H + z_M + z_T, y); the test answers with the sum of the branches.

    ICE = (sum_B CE(z_H) + sum_MT CE(z_M) + sum_T CE(z_T)) / (|B| + |MT| + |T|), over all images of the batch, those of
    medium and tail classes, and those of tail classes.

    The classifier stage that it offers (``Recipe.classifier``) learns the sum first: beta is 0.3 there.

    Args:
        context: Class counts and budget.
        beta: Weight of the branches' own losses; default by classes and imbalance as the authors', see `beta_for`.
        head: Number of head classes, the largest; default as the authors', see `usual_groups`.
        tail: Number of tail classes, the smallest; default likewise.

    Raises:
        UsageError: beta is not in [0, 1], or the groups overlap.
    """
    beta = beta_for(context.class_counts) if beta is None else beta
    if not 0 <= beta <= 1:
        raise UsageError(f"reslt: beta is {beta}; it must lie between 0 and 1")
    classes = nested_classes(context.class_counts, head, tail)
    classifier = replace(
        warm_stage(context, epochs=None, lr=None, cached=None),
        objective=NestedObjective(partial(residual_loss, beta=CLASSIFIER_BETA), classes),
        batch_norm="eval",
    )
    return Recipe(
        stages=(context.stage(NestedObjective(partial(residual_loss, beta=beta), classes)),),
        network=build_residual_network,
        inference=SumBranches(),
        classifier=classifier,
    )
