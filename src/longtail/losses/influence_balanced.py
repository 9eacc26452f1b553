"""Influence-balanced loss, IB (Park et al., ICCV 2021): samples that bend the decision boundary most count less."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.base import upcast
from longtail.losses.focal import log_p_own_and_others


def influence_balanced_loss(logits: Tensor, targets: Tensor, features: Tensor, alpha: float = 1000.0) -> Tensor:
    """IB loss of each sample: its cross-entropy divided by the size of its gradient in the last layer.

    That size is ``||p - onehot||_1 * ||h||_1``, and the loss is ``alpha * CE / (size + 1e-3)``. As in the authors' code
    gradients flow through the divisor. Use it after a phase of plain cross-entropy, with the class weights of
    `inverse_frequency_weights` and the batch mean: ``reduce_losses(losses, targets, class_weights)``. It has no module
    of its own because it needs the features beside the logits.

    Args:
        logits: (B, C), C >= 2.
        targets: Class indices, (B,), int64.
        features: What the last layer sees, h, (B, d).
        alpha: Restores the scale of cross-entropy; 1000 in the paper.

    Returns:
        Losses, (B,), float32 or float64.

    Source:
        https://github.com/pseulki/IB-Loss (losses.py).
    """
    own, others = log_p_own_and_others(upcast(logits), targets)
    # ||p - onehot||_1 is 1 - p_y for the own class and as much for the others together.
    size = 2 * torch.exp(others) * upcast(features).abs().sum(dim=1)
    return -alpha * own / (size + 1e-3)
