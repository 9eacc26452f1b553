"""Logit adjustment (Menon et al., ICLR 2021): the loss, and the post-hoc correction of a trained model."""

from __future__ import annotations

from torch import Tensor

from longtail.losses.base import ClassCountLoss, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_class_counts, check_number
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.reduction import Reduction

PRIOR_FLOOR = 1e-12


def logit_adjustments(class_counts: ClassCounts, tau: float = 1.0) -> Tensor:
    """Adjustments ``log(pi_c ** tau + 1e-12)``, where ``pi_c`` is the share of the training images in class c.

    The floor stands on the power, as in the authors' code; it is felt where ``pi_c ** tau`` comes near it (large
    ``tau``, very rare classes) and keeps a class without images finite.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        tau: Strength >= 0; 1 (the default) is consistent for the balanced error.

    Returns:
        Adjustments, (C,), float64.

    Raises:
        ValueError: If an argument breaks these rules.
    """
    check_number("tau", tau, 0)
    counts = check_class_counts(class_counts).double()
    return ((counts / counts.sum()).pow(tau) + PRIOR_FLOOR).log()


def post_hoc_logit_adjustment(logits: Tensor, class_counts: ClassCounts, tau: float = 1.0) -> Tensor:
    """Adjusted logits ``z_c - log(pi_c ** tau + 1e-12)`` of a model trained with plain cross-entropy.

    A class without images is lifted no more than the rarest class that has some: lifted by its own prior, it would
    win everywhere.

    Args:
        logits: Logits of a trained model, (..., C). Scale a cosine head's output first.
        class_counts: Training images per class, C whole numbers >= 0.
        tau: Strength >= 0; 1 in the paper, 0 changes next to nothing.

    Returns:
        Adjusted logits, (..., C), float32 or float64.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/google-research/google-research (logit_adjustment).
    """
    counts = check_class_counts(class_counts)
    if logits.shape[-1:] != counts.shape:
        raise ValueError(f"logits must have {len(counts)} classes in the last dimension, got {tuple(logits.shape)}")
    adjustments = logit_adjustments(counts, tau)
    adjustments = adjustments.clamp(min=adjustments[counts > 0].min().item())
    logits = upcast(logits)
    return logits - adjustments.to(dtype=logits.dtype).to(logits.device)


def logit_adjusted_loss(logits: Tensor, targets: Tensor, adjustments: Tensor) -> Tensor:
    """Logit-adjusted loss of each sample: cross-entropy of ``z + tau log pi``.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64.
        adjustments: From `logit_adjustments`, (C,).

    Returns:
        Losses, (B,), float32 or float64.
    """
    logits = upcast(logits)
    return cross_entropy_loss(logits + adjustments.to(logits.dtype), targets)


class LogitAdjustmentLoss(ClassCountLoss):
    """Logit-adjusted softmax loss: training with the log-prior added (Menon et al., ICLR 2021).

    Predict with the raw logits. ``tau=1`` is balanced softmax, ``tau=0`` cross-entropy; with equal counts it is
    cross-entropy for every ``tau``. A class without images has its prior floored at ``1e-12``: practically out of the
    softmax, finite as a label.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        tau: Strength >= 0; 1 in the paper.
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/google-research/google-research (logit_adjustment/utils.py).
    """

    balances = True
    adjustments: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        tau: float = 1.0,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.register_per_class("adjustments", logit_adjustments(class_counts, tau))
        self.tau = float(tau)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the logit-adjusted loss of each sample, (B,)."""
        return logit_adjusted_loss(logits, targets, self.adjustments)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"tau={self.tau}, {super().extra_repr()}"
