"""Focal loss (Lin et al., ICCV 2017), softmax form."""

from __future__ import annotations

from longtail.losses import FocalLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Focal loss",
    paper="Lin et al., ICCV 2017",
    arxiv="1708.02002",
    idea="Images that the network already gets right count less, by (1 - p_y)^gamma.",
    use="It knows nothing of class counts: on long-tailed sets it moves the result by a point or two, either way.",
)


def focal(context: Context, *, gamma: float = 1.0) -> Recipe:
    """L = -(1 - p_y)^gamma log p_y, mean over the batch.

    Args:
        context: Class counts and budget.
        gamma: Focusing exponent; 0 is cross-entropy. LDAM-DRW's baseline uses 1.
    """
    return Recipe(stages=(context.stage(SupervisedObjective(FocalLoss(context.class_counts, gamma=gamma))),))
