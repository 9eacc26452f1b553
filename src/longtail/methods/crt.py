"""cRT: classifier re-training (Kang et al., ICLR 2020)."""

from __future__ import annotations

from torch import nn

from longtail.methods.card import Card
from longtail.methods.decoupling import classifier_stage, features_first, warm_stage
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
    context: Context,
    *,
    warm: bool = False,
    stage2_epochs: int | None = None,
    stage2_lr: float | None = None,
    cached: bool | None = None,
) -> Recipe:
    """Stage 1: cross-entropy. Stage 2: new W, b by cross-entropy under class-balanced sampling, backbone frozen.

    Args:
        context: Class counts and budget.
        warm: Go on with the trained classifier instead of a new one, in H2T's setting of stage 2.
        stage2_epochs: Epochs of stage 2; default 30, warm 10.
        stage2_lr: Peak learning rate of stage 2; default 0.1, warm 0.02.
        cached: Train stage 2 on features computed once; default: everywhere but under ``published``.
    """
    if warm:
        return features_first(context, warm_stage(context, epochs=stage2_epochs, lr=stage2_lr, cached=cached))
    lr = 0.1 if stage2_lr is None else stage2_lr
    return features_first(context, classifier_stage(context, _fresh, epochs=stage2_epochs, lr=lr, cached=cached))
