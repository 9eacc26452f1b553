"""cRT: classifier re-training (Kang et al., ICLR 2020)."""

from __future__ import annotations

from torch import nn

from longtail.methods.card import Card
from longtail.methods.decoupling import classifier_stage, features_first
from longtail.networks import LinearHead
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Classifier re-training",
    paper="Kang et al., ICLR 2020",
    arxiv="1910.09217",
    idea="Features learnt from the data as they come are good; only the classifier is biased. Train a fresh one on "
    "frozen features with class-balanced sampling.",
    use="A dependable second stage on any trained backbone.",
    cost="1x plus a few per cent",
)


def _fresh(head: nn.Module) -> nn.Module:
    assert isinstance(head, LinearHead)
    return LinearHead(head.in_features, head.out_features)


def crt(
    context: Context, *, stage2_epochs: int | None = None, stage2_lr: float = 0.1, cached: bool | None = None
) -> Recipe:
    """Stage 1: cross-entropy. Stage 2: new W, b by cross-entropy under class-balanced sampling, backbone frozen.

    Args:
        context: Class counts and budget.
        stage2_epochs: Epochs of stage 2; default 30.
        stage2_lr: Peak learning rate of stage 2.
        cached: Train stage 2 on features computed once; default: everywhere but under ``published``.
    """
    stage = classifier_stage(context, _fresh, epochs=stage2_epochs, lr=stage2_lr, cached=cached)
    return features_first(context, stage)
