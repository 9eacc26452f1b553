"""Rules that turn a network's logits into the logits that are evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from longtail.losses import post_hoc_logit_adjustment


class ScaleLogits(nn.Module):
    """Multiply the logits by a constant: the scale of a cosine classifier, for confidences.

    Args:
        scale: The factor s.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor) -> Tensor:
        """Return s * logits, same shape."""
        return self.scale * logits


class SubtractLogPrior(nn.Module):
    """Post-hoc logit adjustment (Menon et al., ICLR 2021): z_c - tau log pi_c.

    Args:
        class_counts: Training images per class, length C.
        tau: Strength; the paper's default is 1.
    """

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.class_counts = tuple(class_counts)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the adjusted logits (..., C)."""
        return post_hoc_logit_adjustment(logits, self.class_counts, self.tau)
