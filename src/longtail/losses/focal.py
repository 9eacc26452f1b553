"""Focal loss (Lin et al., ICCV 2017) in its softmax and its sigmoid form."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from longtail.losses.base import ClassCountLoss, target_mask, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_choice, check_number
from longtail.losses.reduction import Reduction

FocalForm = Literal["softmax", "sigmoid"]


def log_p_own_and_others(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of ``p_y`` and ``1 - p_y``, (B,) each, accurate at both ends.

    ``1 - p_y`` is summed from the other classes' probabilities, so it neither cancels nor reaches 0 for a sure sample.

    Args:
        logits: (B, C), C >= 2, float32 or float64.
        targets: Class indices, (B,), int64.
    """
    log_p = torch.log_softmax(logits, dim=1)
    own = log_p.gather(1, targets.unsqueeze(1)).squeeze(1)
    others = torch.logsumexp(log_p.masked_fill(target_mask(logits, targets), -torch.inf), dim=1)
    return own, others


def softmax_focal_loss(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Focal loss of each sample over a softmax: ``-(1 - p_y) ** gamma * log p_y``.

    The modulator is ``exp(gamma * log(1 - p_y))``, so neither a sure sample nor ``gamma < 1`` gives an infinite
    gradient.

    Args:
        logits: (B, C), C >= 2.
        targets: Class indices, (B,), int64.
        gamma: Focusing exponent >= 0; 0 is cross-entropy.

    Returns:
        Losses, (B,), float32 or float64.
    """
    own, others = log_p_own_and_others(upcast(logits), targets)
    return -torch.exp(gamma * others) * own


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Focal loss of each sample over C one-against-all sigmoids, summed over the classes.

    With ``p_t = sigmoid(z)`` for the sample's own class and ``1 - sigmoid(z)`` for the others, each class adds
    ``-(1 - p_t) ** gamma * log p_t``; both logarithms are taken as log-sigmoids, which no logit overflows.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64.
        gamma: Focusing exponent >= 0; 0 is binary cross-entropy.

    Returns:
        Losses, (B,), float32 or float64.
    """
    logits = upcast(logits)
    signed = torch.where(target_mask(logits, targets), logits, -logits)
    return -(torch.exp(gamma * logsigmoid(-signed)) * logsigmoid(signed)).sum(dim=1)


class FocalLoss(ClassCountLoss):
    """Focal loss: down-weights samples that are already easy (Lin et al., ICCV 2017).

    It does not look at the class counts beyond their number; for a class-balanced one see `CBLoss`, or give class
    weights, which multiply the whole loss of a sample (its label's weight on all C sigmoid terms). For the sigmoid
    form start the last layer's bias at ``-log(C - 1)``; prediction is the largest logit in both forms.

    Args:
        class_counts: Training images per class, C numbers.
        gamma: Focusing exponent >= 0. The paper's default is 2; LDAM-DRW's baseline uses 1.
        form: ``"softmax"`` (what most long-tail codes use) or ``"sigmoid"`` (the paper's).
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/kaidic/LDAM-DRW (losses.py) for softmax;
        https://github.com/zhangyongshun/BagofTricks-LT (focal_loss.py) for sigmoid.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        gamma: float = 2.0,
        form: FocalForm = "softmax",
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        check_choice("form", form, get_args(FocalForm))
        self.gamma = check_number("gamma", gamma, 0)
        self.form: FocalForm = form

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the focal loss of each sample, (B,)."""
        focal = softmax_focal_loss if self.form == "softmax" else sigmoid_focal_loss
        return focal(logits, targets, self.gamma)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"gamma={self.gamma}, form={self.form!r}, {super().extra_repr()}"
