"""ACE: ally complementary experts (Cai, Wang and Hwang, ICCV 2021)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from longtail.augment import Mixup
from longtail.errors import UsageError
from longtail.losses import cross_entropy_loss
from longtail.losses.base import upcast
from longtail.methods.card import Card
from longtail.methods.class_groups import NestedObjective, nested_classes
from longtail.networks.allies import build_ally_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Ally complementary experts",
    paper="Cai, Wang and Hwang, ICCV 2021",
    arxiv="2108.02385",
    idea="Three experts on one trunk: one for all classes, one for medium and tail, one for the tail. Each learns from "
    "images of its own classes, keeps silent on the others, and learns the slower the fewer images it has.",
    use="For the tail without loss at the head, in one stage. The authors train twice as long, with mixup.",
    cost="1.1x",
)

PUBLISHED = {"epochs": 400, "milestones": (320, 360), "decay": (0.1, 0.01)}


def ally_loss(
    logits: Tensor, targets: Tensor, classes: Tensor, sample_weights: Tensor | None = None, *, com: float
) -> Tensor:
    """The loss of ACE: sum_e L_cls,e + com L_com,e, each a mean over the images of the classes S_e of expert e.

    L_cls,e is the cross-entropy of z_e, L_com,e = mean_{c not in S_e} z_{e,c}^2. An expert without an image in the
    batch adds nothing.

    Args:
        logits: Logits of the experts, z, (E, B, C).
        targets: Class indices, (B,), int64.
        classes: The classes S_e that each expert knows, (E, C), bool.
        sample_weights: Weight of each image, (B,); None for 1.
        com: Weight of L_com.

    Returns:
        Scalar.
    """
    logits = upcast(logits)
    weights = torch.ones_like(logits[0, :, 0]) if sample_weights is None else sample_weights.to(logits.dtype)
    members = classes[:, targets] * weights
    classified = cross_entropy_loss(logits.flatten(0, 1), targets.repeat(len(logits))).view_as(members)
    unknown = ~classes.unsqueeze(1)
    silent = (logits.square() * unknown).sum(-1) / unknown.sum(-1).clamp(min=1)
    totals = members.sum(1)
    losses = ((classified + com * silent) * members).sum(1) / torch.where(totals > 0, totals, 1)
    return losses.sum()


class AverageKnowing(nn.Module):
    """The answer of ACE: for each class the mean of the logits of those experts that know it.

    Args:
        classes: The classes that each expert knows, (E, C), bool; the first knows all.
    """

    classes: Tensor

    def __init__(self, classes: Tensor) -> None:
        super().__init__()
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Map expert logits (E, B, C) to logits (B, C)."""
        known = self.classes.to(logits.device).unsqueeze(1)
        return (logits * known).sum(0) / known.sum(0)


def ace(context: Context, *, head: int | None = None, tail: int | None = None, com: float = 1.0) -> Recipe:
    """L = sum_e CE(z_e, y) + mean_{c not in S_e} z_{e,c}^2 over images of S_e; a class has its experts' mean.

    S_1 is all classes, S_2 medium and tail, S_3 the tail. Only L_1 moves the trunk, and expert e's own parameters learn
    at lr sum_{c in S_e} n_c / N. At the test z_e is multiplied by ||w_1|| / ||w_e||. Under ``published`` on CIFAR also
    400 epochs and mixup.

    Args:
        context: Class counts and budget.
        head: Number of classes that the first expert alone knows, the largest; default as for ``reslt``: 35 of 100.
        tail: Number of classes that all three know, the smallest; default likewise: 30 of 100.
        com: Weight of the mean squared logit of the classes that an expert does not know.

    Raises:
        UsageError: The groups overlap, or com is negative or infinite.
    """
    if not 0 <= com < math.inf:
        raise UsageError(f"ace: com is {com}; it must be finite and at least 0")
    classes = nested_classes(context.class_counts, head, tail)
    stage = context.stage(NestedObjective(partial(ally_loss, com=com), classes))
    if context.protocol == "published" and context.on_cifar:
        stage = replace(stage, mixing=Mixup())
    counts = torch.tensor(context.class_counts, dtype=torch.float64)
    pace = ((classes * counts).sum(1) / counts.sum()).tolist()
    scales = tuple(
        (f"{part}.{number}.", pace[number])
        for number in range(1, len(classes))
        for part in ("backbone.experts", "head.heads")
    )
    return Recipe(
        stages=(replace(stage, optimizer=replace(stage.optimizer, lr_scales=scales)),),
        network=partial(build_ally_network, classes=tuple(map(tuple, classes.tolist()))),
        inference=AverageKnowing(classes),
    )
