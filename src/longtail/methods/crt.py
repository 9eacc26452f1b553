"""cRT: classifier re-training (Kang et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import nn

from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.methods.decoupling import classifier_stage, warm_stage
from longtail.methods.resampling import cb_sampling
from longtail.methods.reweighting import rw
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

Manner = Literal["ce", "rw", "rs"]
"""How a part learns in BBN's study: plainly, with weights of inverse frequency, or from class-balanced samples."""

MANNERS: dict[Manner, tuple[str, Callable[[Context], Recipe]]] = {
    "ce": ("ce", ce),
    "rw": ("rw", rw),
    "rs": ("cb-sampling", cb_sampling),
}
"""Name of the method that trains all of a network in a manner, and its recipe."""


def _fresh(head: nn.Module) -> nn.Module:
    assert isinstance(head, LinearHead)
    return LinearHead(head.in_features, head.out_features)


def crt(
    context: Context,
    *,
    features: Manner = "ce",
    classifier: Manner = "rs",
    warm: bool = False,
    stage2_epochs: int | None = None,
    stage2_lr: float | None = None,
    cached: bool | None = None,
) -> Recipe:
    """Stage 1: cross-entropy. Stage 2: new W, b by cross-entropy under class-balanced sampling, backbone frozen.

    Args:
        context: Class counts and budget.
        features: How stage 1 learns: ``ce``; ``rw``: weights of inverse frequency; ``rs``: class-balanced sampling.
        classifier: How stage 2 learns, likewise; the nine pairs are the grid of BBN's figure 2.
        warm: Go on with the trained classifier instead of a new one, in H2T's setting of stage 2.
        stage2_epochs: Epochs of stage 2; default 30, ``published`` on ImageNet-LT 10, warm 10.
        stage2_lr: Peak learning rate of stage 2; default 0.1, ``published`` on the large sets 0.2, warm 0.02.
        cached: Train stage 2 on features computed once; default: everywhere but under ``published``.
    """
    if warm:
        stage = warm_stage(context, epochs=stage2_epochs, lr=stage2_lr, cached=cached)
    else:
        large = 30 if context.dataset == "inat18" else 10
        stage = classifier_stage(context, _fresh, epochs=stage2_epochs, lr=stage2_lr, cached=cached, large_epochs=large)
    (learning,) = MANNERS[features][1](context).stages
    if classifier != "rs":  # which the stage is by itself
        (manner,) = MANNERS[classifier][1](context).stages
        stage = replace(stage, objective=manner.objective, sampling=manner.sampling)
    return Recipe(stages=(replace(learning, name="features"), stage))
