"""Logit adjustment (Menon et al., ICLR 2021): the loss, and the post-hoc form as a modifier."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from longtail.errors import UsageError
from longtail.losses import LogitAdjustmentLoss
from longtail.methods.card import Card
from longtail.methods.inference import SubtractLogPrior
from longtail.methods.supervised import SupervisedObjective
from longtail.sampling import InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe, Stage

CARD = Card(
    title="Logit-adjusted loss",
    paper="Menon et al., ICLR 2021",
    arxiv="2007.07314",
    idea="Add tau log pi_c to the training logits, which makes the loss consistent with the balanced error.",
    use="tau = 1 is balanced softmax; tune tau (on a dev split) where the tail needs more or less.",
)
POST_HOC_CARD = Card(
    title="Post-hoc logit adjustment",
    paper="Menon et al., ICLR 2021",
    arxiv="2007.07314",
    idea="Train as usual; at test time subtract tau log pi_c from the logits.",
    use="Free on any trained model with a linear head; on ce it gains most of what the loss gains.",
    cost="1x, nothing at training",
)


def la(context: Context, *, tau: float = 1.0) -> Recipe:
    """L = CE(z + tau log pi, y); the test uses z itself.

    Args:
        context: Class counts and budget.
        tau: Strength of the prior; the paper's default is 1, 0 is cross-entropy.
    """
    return Recipe(stages=(context.stage(SupervisedObjective(LogitAdjustmentLoss(context.class_counts, tau=tau))),))


def _keeps_prior(stage: Stage) -> bool:
    """Return whether a classifier that a stage trains expects the classes as often as the training set has them."""
    objective = stage.objective
    if not isinstance(objective, SupervisedObjective) or stage.sampling[0] != InstanceSampling():
        return False
    return not objective.criterion.balances and objective.criterion.class_weights is None


def post_hoc_la(recipe: Recipe, context: Context, *, tau: float = 1.0) -> Recipe:
    """Predict argmax_c z_c - tau log pi_c with the trained network.

    Args:
        recipe: A recipe that leaves the training prior in its logits.
        context: Class counts.
        tau: Strength; the paper's default is 1.

    Raises:
        UsageError: The recipe has an inference rule of its own, or its classifier is balanced already.
    """
    if not isinstance(recipe.inference, nn.Identity):
        raise UsageError(
            "+post-hoc-la needs plain logits at test time, but this method has its own inference rule",
            fix="use ce+post-hoc-la",
        )
    if not _keeps_prior(recipe.stages[-1]):
        raise UsageError(
            "+post-hoc-la would balance twice: this method's classifier is made for equal classes already",
            fix="use ce+post-hoc-la",
        )
    return replace(recipe, inference=SubtractLogPrior(context.class_counts, tau))
