"""Cross-entropy: the baseline that every table starts with."""

from __future__ import annotations

from longtail.losses import CrossEntropyLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Cross-entropy",
    paper="the plain baseline",
    arxiv="",
    idea="Every image counts the same, so the head classes dominate the loss and the classifier.",
    use="As the reference; as stage 1 of the decoupled methods, whose features it learns well.",
)


def ce(context: Context) -> Recipe:
    """L = -log softmax(z)_y, mean over the batch."""
    return Recipe(stages=(context.stage(SupervisedObjective(CrossEntropyLoss(context.class_counts))),))
