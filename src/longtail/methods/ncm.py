"""Nearest class mean (Kang et al., ICLR 2020)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from longtail.methods.card import Card
from longtail.methods.decoupling import features_first, fitted_stage
from longtail.networks import LinearHead, NearestMeanHead
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

Transform = Literal["cl2n", "l2n", "un"]
Distance = Literal["l2", "cos"]

CARD = Card(
    title="Nearest class mean",
    paper="Kang et al., ICLR 2020",
    arxiv="1910.09217",
    idea="Give up the classifier: an image belongs to the class whose mean feature is nearest.",
    use="Strong on tail classes with almost no images, at some cost for the head.",
)


def _empty(head: nn.Module, *, transform: Transform, distance: Distance) -> nn.Module:
    assert isinstance(head, LinearHead)
    means, centre = torch.zeros(head.out_features, head.in_features), torch.zeros(head.in_features)
    return NearestMeanHead(means, centre, normalise=transform != "un", distance=distance)


def _fit(head: nn.Module, features: Tensor, targets: Tensor, *, transform: Transform, distance: Distance) -> None:
    assert isinstance(head, NearestMeanHead)
    fitted = NearestMeanHead.from_features(features, targets, head.out_features, transform=transform, distance=distance)
    head.load_state_dict(fitted.state_dict())


def ncm(context: Context, *, transform: Transform = "cl2n", distance: Distance = "l2") -> Recipe:
    """Stage 1: cross-entropy. Then predict the class whose mean feature is nearest.

    Args:
        context: Class counts and budget.
        transform: Of the features: ``cl2n`` centres and normalises (the authors' default), ``l2n`` normalises, ``un``
            does neither.
        distance: ``l2`` (the authors' default) or ``cos``.
    """
    empty = partial(_empty, transform=transform, distance=distance)
    fit = partial(_fit, transform=transform, distance=distance)
    stage = fitted_stage(context, "class-means", empty, fit=fit)
    return features_first(context, stage)
