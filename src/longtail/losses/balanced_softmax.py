"""Balanced softmax (Ren et al., NeurIPS 2020): the class counts inside the training softmax."""

from __future__ import annotations

from torch import Tensor

from longtail.losses.base import ClassCountLoss, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_class_counts
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.logit_adjustment import PRIOR_FLOOR
from longtail.losses.reduction import Reduction


def log_class_counts(class_counts: ClassCounts) -> Tensor:
    """Logarithms of the class counts, (C,), float64; a class without images counts ``1e-12`` of all images.

    Raises:
        ValueError: If the counts are not valid.
    """
    counts = check_class_counts(class_counts).double()
    return counts.clamp(min=PRIOR_FLOOR * counts.sum().item()).log()


def balanced_softmax_loss(logits: Tensor, targets: Tensor, log_counts: Tensor) -> Tensor:
    """Balanced softmax loss of each sample: ``-log(n_y e^z_y / sum_c n_c e^z_c)``.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64.
        log_counts: From `log_class_counts`, (C,); log-priors give the same loss.

    Returns:
        Losses, (B,), float32 or float64.
    """
    logits = upcast(logits)
    return cross_entropy_loss(logits + log_counts.to(logits.dtype), targets)


class BalancedSoftmaxLoss(ClassCountLoss):
    """Balanced softmax: the network's raw logits learn the balanced posterior (Ren et al., NeurIPS 2020).

    Predict with the raw logits. It equals `LogitAdjustmentLoss` with ``tau=1``, and cross-entropy where the counts are
    equal. A class without images is practically out of the softmax (its prior is floored at ``1e-12``, so its loss is
    finite should it occur as a label). The counts must be those of the images trained on.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/jiawei-ren/BalancedMetaSoftmax-Classification (loss/BalancedSoftmaxLoss.py).
    """

    balances = True
    log_counts: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.register_per_class("log_counts", log_class_counts(class_counts))

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the balanced softmax loss of each sample, (B,)."""
        return balanced_softmax_loss(logits, targets, self.log_counts)
