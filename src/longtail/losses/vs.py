"""Vector-scaling loss, VS (Kini et al., NeurIPS 2021): a factor and a shift for every class's logit."""

from __future__ import annotations

from torch import Tensor

from longtail.losses.base import ClassCountLoss, upcast
from longtail.losses.cdt import cdt_temperatures
from longtail.losses.checks import ClassCounts, ClassWeights, check_class_counts, check_number
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.logit_adjustment import PRIOR_FLOOR
from longtail.losses.reduction import Reduction


def vs_factors(class_counts: ClassCounts, gamma: float = 0.3) -> Tensor:
    """Factors ``(n_c / n_max) ** gamma``, (C,), float64; without images that of the rarest class that has some.

    Raises:
        ValueError: If the counts are not valid or gamma is negative.
    """
    return cdt_temperatures(class_counts, gamma).reciprocal()


def vs_shifts(class_counts: ClassCounts, tau: float = 1.0) -> Tensor:
    """Shifts ``tau * log pi_c``, (C,), float64; the prior of a class without images is ``1e-12``.

    Raises:
        ValueError: If the counts are not valid or tau is negative.
    """
    check_number("tau", tau, 0)
    counts = check_class_counts(class_counts).double()
    return tau * (counts / counts.sum()).clamp(min=PRIOR_FLOOR).log()


def vs_loss(logits: Tensor, targets: Tensor, factors: Tensor, shifts: Tensor) -> Tensor:
    """VS loss of each sample: cross-entropy of ``factor_c * z_c + shift_c``.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64.
        factors: From `vs_factors`, (C,).
        shifts: From `vs_shifts`, (C,).

    Returns:
        Losses, (B,), float32 or float64.
    """
    logits = upcast(logits)
    return cross_entropy_loss(logits * factors.to(logits.dtype) + shifts.to(logits.dtype), targets)


class VSLoss(ClassCountLoss):
    """VS loss: the additive adjustment acts early, the multiplicative one late (Kini et al., NeurIPS 2021).

    Predict with the raw logits. ``gamma=0`` is logit adjustment, ``tau=0`` is CDT, equal counts give cross-entropy. A
    class without images has the factor of the rarest class that has some and its prior floored at ``1e-12``:
    practically out of the softmax, finite as a label.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        gamma: Exponent of the factors, >= 0; 0.3 is the authors' default, 0.2 their example for CIFAR-10.
        tau: Strength of the shifts, >= 0; 1 is the authors' default, 1.2 their example for CIFAR-10.
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/orparask/VS-Loss (class_imbalance/losses.py).
    """

    balances = True
    factors: Tensor
    shifts: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        gamma: float = 0.3,
        tau: float = 1.0,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.register_per_class("factors", vs_factors(class_counts, gamma))
        self.register_per_class("shifts", vs_shifts(class_counts, tau))
        self.gamma, self.tau = float(gamma), float(tau)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the VS loss of each sample, (B,)."""
        return vs_loss(logits, targets, self.factors, self.shifts)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"gamma={self.gamma}, tau={self.tau}, {super().extra_repr()}"
