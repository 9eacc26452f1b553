"""BBN: bilateral-branch network with cumulative learning (Zhou et al., CVPR 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from longtail.losses import CrossEntropyLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.networks.bilateral import build_bilateral_network
from longtail.sampling import ClassBalancedSampling, InstanceSampling, ReverseSampling, Sampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.types import Batch, Progress

CARD = Card(
    title="Bilateral-branch network",
    paper="Zhou et al., CVPR 2020",
    arxiv="1912.02413",
    idea="Two branches on one trunk, one fed with images as the data come, one with rare classes in front. What counts "
    "moves over the epochs from the first, which learns features, to the second, which learns the tail.",
    use="To balance in one run without a second stage. Twice the training time; class weights or bsce cost nothing.",
    cost="2x",
)

PUBLISHED = {"nesterov": True, "milestones": (120, 160)}
_LONG = {"epochs": 180, "warmup": 0, "schedule": "step", "milestones": (120, 160), "decay": (0.1, 0.01)}
_INATURALIST = {**_LONG, "batch_size": 128, "lr": 0.05, "weight_decay": 1e-4, "nesterov": True}
PUBLISHED_ON = {"inat17": _INATURALIST, "inat18": _INATURALIST}

Adaptor = Literal["parabolic", "linear", "cosine", "equal"]

ADAPTORS: dict[Adaptor, Callable[[float], float]] = {
    "parabolic": lambda done: 1 - done**2,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: math.cos(done * math.pi / 2),
    "equal": lambda done: 0.5,
}
"""Share alpha of the conventional branch by the share of the epochs that is done."""

REBALANCING: dict[str, Sampling] = {
    "reverse": ReverseSampling(),
    "balanced": ClassBalancedSampling(),
    "uniform": InstanceSampling(),
}


class BilateralObjective(nn.Module):
    """The cumulative learning of BBN: both branches' features, weighted by alpha, under one classifier and two labels.

    Takes two batches, the conventional and the re-balancing stream, and a network whose features are (2, B, d).

    Args:
        objective: The loss of a batch's logits.
        adaptor: How alpha falls over the epochs, a key of `ADAPTORS`.
    """

    def __init__(self, objective: SupervisedObjective, adaptor: Adaptor = "parabolic") -> None:
        super().__init__()
        self.objective = objective
        self.adaptor: Adaptor = adaptor

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return alpha l(z, y_c) + (1 - alpha) l(z, y_r), alpha by the epochs that are done."""
        images = torch.stack([batch.images for batch in batches])
        features: Tensor = network.features(images)  # type: ignore[operator]
        alpha = ADAPTORS[self.adaptor](progress.epoch / progress.epochs)
        return self.loss(network.head, features, batches, alpha)  # type: ignore[arg-type]

    def loss(self, head: nn.Module, features: Tensor, batches: tuple[Batch, ...], alpha: float) -> Tensor:
        """Return the loss of the features of both streams, (2, B, d), at a given alpha."""
        logits = head(torch.stack([2 * alpha * features[0], 2 * (1 - alpha) * features[1]]))
        conventional, rebalancing = (self.objective.loss(logits, batch) for batch in batches)
        return alpha * conventional + (1 - alpha) * rebalancing

    def extra_repr(self) -> str:
        """Say how alpha falls."""
        return f"adaptor={self.adaptor!r}"


def bbn(
    context: Context,
    *,
    adaptor: Adaptor = "parabolic",
    rebalancing: Literal["reverse", "balanced", "uniform"] = "reverse",
) -> Recipe:
    """L = alpha l(z, y_c) + (1 - alpha) l(z, y_r) with z = W [2 alpha f_c; 2 (1 - alpha) f_r] + b, l cross-entropy.

    f_c are the conventional branch's features of an image x_c drawn as the data come, f_r the other branch's of an
    image x_r drawn with probability ~ 1 / n_y. alpha = 1 - (epoch / epochs)^2, epochs counted from 0. At the test both
    branches see the same image and alpha is 1/2: z = W [f_c; f_r] + b.

    Args:
        context: Class counts and budget.
        adaptor: How alpha falls from 1 towards 0: ``parabolic`` as in the paper's results, ``linear``, ``cosine``; or
            ``equal``: 1/2 throughout.
        rebalancing: Classes of the second stream: ``reverse`` as in the paper's results, ``balanced``, or ``uniform``:
            as the data come.
    """
    objective = BilateralObjective(SupervisedObjective(CrossEntropyLoss(context.class_counts)), adaptor)
    stage = replace(context.stage(objective), sampling=(InstanceSampling(), REBALANCING[rebalancing]))
    return Recipe(stages=(stage,), network=build_bilateral_network)
