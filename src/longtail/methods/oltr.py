"""OLTR: open long-tailed recognition by dynamic meta-embedding (Liu et al., CVPR 2019)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import CrossEntropyLoss
from longtail.losses.base import upcast
from longtail.methods.card import Card
from longtail.methods.decoupling import features_first
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import LinearHead
from longtail.networks.memory import MetaEmbeddingHead, squared_distances
from longtail.sampling import CyclicClassSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.types import Batch, Progress

CARD = Card(
    title="Open long-tailed recognition",
    paper="Liu et al., CVPR 2019",
    arxiv="1904.05160",
    idea="After plain training a memory of class centroids lends features of rare classes what they lack, and features "
    "far from every centroid become short, so that their classes are said with less confidence.",
    use="Made for data in which images of unknown classes come. On accuracy the decoupled methods are ahead.",
    cost="2x; 3x under published",
)

_STEPS = {"warmup": 0, "schedule": "step", "milestones": (10, 20), "decay": (0.1, 0.01)}
PUBLISHED_ON = {"imagenet-lt": {**_STEPS, "epochs": 30, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-4}}

MARGIN, REPEL = 10.0, 0.01
SLOW = 0.1
"""Learning rate of features and centroids, relative to that of the classifier."""


def centroid_loss(features: Tensor, targets: Tensor, centroids: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """0.5 mean ||v - c_y||^2 + 0.01 max(0, 10 - mean_k ||v - c_k||^2 [k != y]).

    The second mean is over all images and classes, the own class counting as 0, as in the official code. No gradient of
    the first part reaches the centroids; see `centroid_pull`.

    Args:
        features: v, (B, d).
        targets: Classes y, (B,), int64.
        centroids: c, (C, d).
        sample_weights: Weight of each image, (B,); None for 1.

    Returns:
        Scalar.

    Source: github.com/zhmiao/OpenLongTailRecognition-OLTR, loss/DiscCentroidsLoss.py.
    """
    v, c = upcast(features), upcast(centroids)
    weights = torch.ones_like(v[:, 0]) if sample_weights is None else sample_weights.to(v.dtype)
    attract = 0.5 * ((v - c.detach()[targets]).square().sum(1) * weights).sum() / weights.sum()
    distances = squared_distances(v, c)
    others = distances.sum(1) - distances.gather(1, targets.unsqueeze(1)).squeeze(1)
    repel = (MARGIN - (others * weights).sum() / (weights.sum() * len(c))).clamp(min=0)
    return attract + REPEL * repel


def centroid_pull(features: Tensor, targets: Tensor, centroids: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """A scalar of value 0 whose gradient draws centroids to their images: that of the first part of `centroid_loss`.

    It is divided by 1 + the images of the class in the batch. The official code computes this gradient itself and
    leaves out the weight of the loss. Arguments are those of `centroid_loss`.
    """
    v, c = upcast(features).detach(), upcast(centroids)
    weights = torch.ones_like(v[:, 0]) if sample_weights is None else sample_weights.to(v.dtype)
    images = torch.zeros_like(c[:, 0]).index_add_(0, targets, weights)
    pull = 0.5 * ((v - c[targets]).square().sum(1) * weights / (1 + images[targets])).sum() / weights.sum()
    return pull - pull.detach()


class MetaEmbedding(nn.Module):
    """L = L_classifier + weight L_centroids on the first stream, mixed targets included.

    Args:
        objective: The loss on the logits.
        weight: Of the loss on the centroids. As in the official code their attraction does not have it.
    """

    def __init__(self, objective: SupervisedObjective, weight: float) -> None:
        super().__init__()
        self.objective = objective
        self.weight = weight

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        features: Tensor = network.features(batches[0].images)  # type: ignore[operator]
        head = network.head
        assert isinstance(head, MetaEmbeddingHead)
        loss = self.objective.loss(head(features), batches[0])
        targets, shares = batches[0].labels()
        stacked = features if shares is None else torch.cat([features, features])
        facts = (stacked, targets, head.centroids, shares)
        return loss + self.weight * centroid_loss(*facts) + centroid_pull(*facts)

    def extra_repr(self) -> str:
        """Say the weight."""
        return f"weight={self.weight}"


def oltr(context: Context, *, stage2_epochs: int | None = None, weight: float = 0.01) -> Recipe:
    """Stage 1: cross-entropy. Stage 2: memory and cosine classifier, CE + 0.01 L_centroids, classes drawn in turn.

    v_mem = sum_k softmax(W_h v)_k c_k, e = tanh(W_s v), x = 10 / min_k ||v - c_k|| (v + e v_mem), and the logits are
    16 w_k / ||w_k|| . x / (1 + ||x||). W_h begins as the classifier of stage 1, the centroids c as the class means. The
    features learn at a tenth of the rate. Without the spatial attention of the paper.

    Args:
        context: Class counts and budget.
        stage2_epochs: Epochs of stage 2; default those of stage 1, ``published`` twice as many.
        weight: Of L_centroids.

    Raises:
        UsageError: The weight is negative or infinite, or there are no epochs.
    """
    if stage2_epochs is None:
        stage2_epochs = context.budget.epochs * (2 if context.protocol == "published" else 1)
    if not (0 <= weight < math.inf and stage2_epochs >= 1):
        raise UsageError(
            f"oltr: weight is {weight} and stage2_epochs {stage2_epochs}; they must be finite, >= 0 and >= 1"
        )
    budget = context.budget.scaled(stage2_epochs)
    objective = MetaEmbedding(SupervisedObjective(CrossEntropyLoss(context.class_counts)), weight)
    plain = replace(context, budget=budget).stage(objective, "meta-embedding")
    stage = replace(
        plain,
        optimizer=replace(plain.optimizer, lr_scales=(("backbone.", SLOW), ("head.centroids", SLOW))),
        schedule=replace(plain.schedule, warmup=0),
        sampling=(CyclicClassSampling(4),),
        new_head=_with_memory,
        fit=_place_centroids,
    )
    return features_first(context, stage)


def _with_memory(head: nn.Module) -> nn.Module:
    assert isinstance(head, LinearHead)
    return MetaEmbeddingHead(head)


def _place_centroids(head: nn.Module, features: Tensor, targets: Tensor) -> None:
    assert isinstance(head, MetaEmbeddingHead)
    head.place_centroids(features, targets)
