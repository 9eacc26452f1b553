"""Vector-scaling loss (Kini et al., NeurIPS 2021)."""

from __future__ import annotations

from longtail.losses import VSLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Vector-scaling loss",
    paper="Kini et al., NeurIPS 2021",
    arxiv="2103.01550",
    idea="Additive adjustments act early, multiplicative ones late: use both.",
    use="gamma = 0 is the logit-adjusted loss, tau = 0 is CDT.",
)


def vs(context: Context, *, gamma: float = 0.3, tau: float = 1.0) -> Recipe:
    """L = CE(Delta z + tau log pi, y), Delta_c = (n_c / n_max)^gamma; the test uses z itself.

    Args:
        context: Class counts and budget.
        gamma: Exponent of the multiplicative part; official default 0.3.
        tau: Strength of the additive part; official default 1.
    """
    return Recipe(stages=(context.stage(SupervisedObjective(VSLoss(context.class_counts, gamma=gamma, tau=tau))),))
