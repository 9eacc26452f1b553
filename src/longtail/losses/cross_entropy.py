"""Softmax cross-entropy: the baseline, and with class weights cost-sensitive learning."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.base import ClassCountLoss, upcast


def cross_entropy_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Softmax cross-entropy of each sample: ``-log p_y``.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64. No index is ignored.

    Returns:
        Losses, (B,), float32 or float64.
    """
    log_p = torch.log_softmax(upcast(logits), dim=1)
    return -log_p.gather(1, targets.unsqueeze(1)).squeeze(1)


class CrossEntropyLoss(ClassCountLoss):
    """Softmax cross-entropy, optionally weighted by class.

    Nothing here depends on the counts but the number of classes; like every loss it takes them, so that one can stand
    in for another. A class without images stays an ordinary competitor in the softmax.

    Args:
        class_counts: Training images per class, C numbers.
        class_weights: Weight of each class, for example from `inverse_frequency_weights`; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"`` (`torch.nn.CrossEntropyLoss` with weights), ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks the rules of `ClassCountLoss`.
    """

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return ``-log p_y`` of each sample, (B,)."""
        return cross_entropy_loss(logits, targets)
