"""Class-dependent temperatures, CDT (Ye et al., arXiv 2001.01385, 2020)."""

from __future__ import annotations

from torch import Tensor

from longtail.losses.base import ClassCountLoss, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_class_counts, check_number
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.reduction import Reduction


def cdt_temperatures(class_counts: ClassCounts, gamma: float = 0.2) -> Tensor:
    """Temperatures ``(n_max / n_c) ** gamma``: 1 for the largest class, more for rarer ones.

    A class without images has the temperature of the rarest class that has some.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        gamma: Exponent >= 0; 0 gives every class temperature 1.

    Returns:
        Temperatures, (C,), float64.

    Raises:
        ValueError: If an argument breaks these rules.
    """
    check_number("gamma", gamma, 0)
    counts = check_class_counts(class_counts)
    rarest = int(counts[counts > 0].min())
    return (counts.max() / counts.clamp(min=rarest).double()).pow(gamma)


def cdt_loss(logits: Tensor, targets: Tensor, temperatures: Tensor) -> Tensor:
    """CDT loss of each sample: cross-entropy of ``z_c / a_c``.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64.
        temperatures: From `cdt_temperatures`, (C,).

    Returns:
        Losses, (B,), float32 or float64.
    """
    logits = upcast(logits)
    return cross_entropy_loss(logits / temperatures.to(logits.dtype), targets)


class CDTLoss(ClassCountLoss):
    """CDT: divides rare classes' logits in training, so that their raw logits must grow (Ye et al., 2020).

    Predict with the raw logits. Being multiplicative it goes on acting after the training error is zero. With equal
    counts or ``gamma=0`` it is cross-entropy; a class without images has the largest temperature.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        gamma: Exponent >= 0. The paper tunes it, up to 0.4 on CIFAR-10, 0.2 on CIFAR-100 and 0.1 on iNaturalist; the
            default 0.2 is that of the bag-of-tricks study.
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/zhangyongshun/BagofTricks-LT (class_dependent_temperatures_loss.py).
    """

    balances = True
    temperatures: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        gamma: float = 0.2,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.register_per_class("temperatures", cdt_temperatures(class_counts, gamma))
        self.gamma = float(gamma)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the CDT loss of each sample, (B,)."""
        return cdt_loss(logits, targets, self.temperatures)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"gamma={self.gamma}, {super().extra_repr()}"
