"""LWS: learnable weight scaling (Kang et al., ICLR 2020)."""

from __future__ import annotations

from torch import nn

from longtail.methods.card import Card
from longtail.methods.decoupling import classifier_stage, features_first
from longtail.networks import LearnableScalingHead, LinearHead
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Learnable weight scaling",
    paper="Kang et al., ICLR 2020",
    arxiv="1910.09217",
    idea="Keep the directions of the trained class weights; learn one scale per class under class-balanced sampling.",
    use="As cRT, with C numbers to learn instead of a whole classifier: hard to overfit.",
    cost="1x plus a few per cent",
)


def _scaled(head: nn.Module) -> nn.Module:
    assert isinstance(head, LinearHead)
    return LearnableScalingHead(head)


def lws(
    context: Context, *, stage2_epochs: int | None = None, stage2_lr: float | None = None, cached: bool | None = None
) -> Recipe:
    """Stage 1: cross-entropy. Stage 2: z_k = s_k (w_k . f + b_k), only s is trained, class-balanced.

    Args:
        context: Class counts and budget.
        stage2_epochs: Epochs of stage 2; default 30, ``published`` on the large sets 5.
        stage2_lr: Peak learning rate of stage 2; default 0.1, ``published`` on the large sets 0.2.
        cached: Train stage 2 on features computed once; default: everywhere but under ``published``.
    """
    stage = classifier_stage(context, _scaled, epochs=stage2_epochs, lr=stage2_lr, cached=cached, large_epochs=5)
    return features_first(context, stage)
