"""The objective of every method that is one loss on one stream of labelled images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtail.losses import ClassCountLoss
from longtail.types import Batch, Progress


class SupervisedObjective(nn.Module):
    """A classification loss on the first stream, mixed targets included.

    For a mixed batch the loss is lam * l(z, y) + (1 - lam) * l(z, y_mixed) for each image, computed in one call on the
    logits stacked twice with lam and 1 - lam as sample weights: exact for per-image lam and for losses that normalise
    by the sum of class weights.

    Args:
        criterion: ClassCountLoss of `longtail.losses`, called with (logits (B, C), targets (B,), sample_weights (B,)).
    """

    def __init__(self, criterion: ClassCountLoss) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        return self.loss(network(batches[0].images), batches[0])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of a batch's logits (B, C)."""
        targets, shares = batch.labels()
        stacked = logits if shares is None else torch.cat([logits, logits])
        loss: Tensor = self.criterion(stacked, targets, sample_weights=shares)
        return loss
