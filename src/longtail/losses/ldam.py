"""Label-distribution-aware margin loss (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.base import ClassCountLoss, target_mask, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_class_counts, check_number
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.reduction import Reduction


def ldam_margins(class_counts: ClassCounts, max_m: float = 0.5) -> Tensor:
    """Margins ``max_m * (n_min / n_c) ** (1/4)``: the rarest class has margin ``max_m``.

    The rarest class is sought among those with images; a class without images has margin 0.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        max_m: Largest margin, >= 0; 0.5 in the paper.

    Returns:
        Margins, (C,), float64.

    Raises:
        ValueError: If an argument breaks these rules.
    """
    check_number("max_m", max_m, 0)
    counts = check_class_counts(class_counts)
    relative = counts[counts > 0].min() / counts.clamp(min=1).double()
    return (max_m * relative.pow(0.25)).masked_fill(counts == 0, 0.0)


def ldam_loss(cosines: Tensor, targets: Tensor, margins: Tensor, s: float) -> Tensor:
    """LDAM loss of each sample: cross-entropy of ``s * (z - margin_y * onehot_y)``.

    Args:
        cosines: Unscaled cosines, (B, C).
        targets: Class indices, (B,), int64.
        margins: From `ldam_margins`, (C,).
        s: Scale of the cosines inside the softmax.

    Returns:
        Losses, (B,), float32 or float64.
    """
    cosines = upcast(cosines)
    lowered = cosines - margins.to(cosines.dtype)
    return cross_entropy_loss(s * torch.where(target_mask(cosines, targets), lowered, cosines), targets)


class LDAMLoss(ClassCountLoss):
    """LDAM: asks a larger margin of rarer classes (Cao et al., NeurIPS 2019).

    It expects cosines in [-1, 1], as a cosine head emits them, and scales them itself; with plain logits ``s=30``
    explodes. With equal counts every margin is ``max_m``, which rather hurts; a class with one image is as any other;
    a class without images has margin 0 and competes in the softmax.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        max_m: Margin of the rarest class, >= 0; 0.5 in the paper (its authors advise 0.3 for iNaturalist).
        s: Scale of the cosines, >= 0; 30 in the paper.
        class_weights: Weight of each class, as in the re-weighted stage of LDAM-DRW; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"`` (LDAM-DRW's second stage), ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/kaidic/LDAM-DRW (losses.py).
    """

    margins: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        max_m: float = 0.5,
        s: float = 30.0,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.register_per_class("margins", ldam_margins(class_counts, max_m))
        self.max_m = float(max_m)
        self.s = check_number("s", s, 0)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the LDAM loss of each sample, (B,), from unscaled cosines (B, C)."""
        return ldam_loss(logits, targets, self.margins, self.s)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"max_m={self.max_m}, s={self.s}, {super().extra_repr()}"
