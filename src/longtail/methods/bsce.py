"""Balanced softmax cross-entropy (Ren et al., NeurIPS 2020)."""

from __future__ import annotations

from longtail.losses import BalancedSoftmaxLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Balanced softmax",
    paper="Ren et al., NeurIPS 2020",
    arxiv="2007.10740",
    idea="Put the class frequencies into the training softmax, so that the bare logits fit a balanced test set.",
    use="The strong default: one line, no extra cost, no extra setting. Costs the head classes some accuracy.",
)


def bsce(context: Context) -> Recipe:
    """L = -log( n_y e^{z_y} / sum_c n_c e^{z_c} ); the test uses z itself."""
    return Recipe(stages=(context.stage(SupervisedObjective(BalancedSoftmaxLoss(context.class_counts))),))
