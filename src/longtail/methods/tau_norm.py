"""tau-normalised classifier (Kang et al., ICLR 2020)."""

from __future__ import annotations

from functools import partial

from torch import nn

from longtail.methods.card import Card
from longtail.methods.decoupling import features_first, fitted_stage
from longtail.networks import LinearHead, TauNormHead
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="tau-normalised classifier",
    paper="Kang et al., ICLR 2020",
    arxiv="1910.09217",
    idea="Head classes have larger weight norms; divide each class weight by its norm to the power tau.",
    use="A free repair of a trained model, no second training.",
)


def _normalised(head: nn.Module, *, tau: float, keep_bias: bool) -> nn.Module:
    assert isinstance(head, LinearHead)
    return TauNormHead(head, tau=tau, keep_bias=keep_bias)


def tau_norm(context: Context, *, tau: float = 1.0, keep_bias: bool = False) -> Recipe:
    """Stage 1: cross-entropy. Then w_k <- w_k / ||w_k||^tau.

    The paper chooses tau on a validation set; without one, 1 is the fixed value of the bag-of-tricks code.

    Args:
        context: Class counts and budget.
        tau: 0 keeps the weights, 1 makes all norms equal.
        keep_bias: The authors' code drops the bias (False), the bag-of-tricks code keeps it.
    """
    return features_first(
        context, fitted_stage(context, "tau-norm", partial(_normalised, tau=tau, keep_bias=keep_bias))
    )
