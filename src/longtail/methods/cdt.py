"""Class-dependent temperatures (Ye et al., 2020)."""

from __future__ import annotations

from longtail.losses import CDTLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Class-dependent temperatures",
    paper="Ye et al., arXiv 2020",
    arxiv="2001.01385",
    idea="Divide the logits of rare classes by a larger temperature in training, which forces larger tail logits.",
    use="Acts even after the training error is zero, unlike additive adjustments. gamma wants tuning per data set.",
)


def cdt(context: Context, *, gamma: float = 0.2) -> Recipe:
    """L = CE(z / a, y), a_c = (n_max / n_c)^gamma; the test uses z itself.

    Args:
        context: Class counts and budget.
        gamma: Exponent; the official range is 0 to 0.4 for CIFAR-10 and 0 to 0.2 for CIFAR-100.
    """
    return Recipe(stages=(context.stage(SupervisedObjective(CDTLoss(context.class_counts, gamma=gamma))),))
