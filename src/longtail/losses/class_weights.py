"""Class weights from class counts: inverse frequency, its root, and the effective number of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.checks import ClassCounts, check_class_counts, check_number


def _normalised(raw: Tensor, present: Tensor) -> Tensor:
    """Scale the weights of the classes that have images to mean 1, and set the others to 0."""
    weights = raw.masked_fill(~present, 0.0)
    return weights * (present.sum() / weights.sum())


def inverse_frequency_weights(class_counts: ClassCounts, power: float = 1.0) -> Tensor:
    """Weights ``1 / n_c ** power``, scaled to sum to C (the classical re-weighting).

    A class without images has weight 0, and the others are scaled to mean 1 among themselves.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        power: 1 for inverse frequency (the default), 0.5 for inverse square root, 0 for no re-weighting.

    Returns:
        Weights, (C,), float64.

    Raises:
        ValueError: If the counts are not valid or the power is negative.
    """
    check_number("power", power, 0)
    counts = check_class_counts(class_counts)
    # Relative to the rarest class, so that no power of a large count can underflow every weight.
    relative = counts.clamp(min=1).double() / counts[counts > 0].min()
    return _normalised(relative.pow(-power), counts > 0)


def effective_number_weights(class_counts: ClassCounts, beta: float = 0.9999) -> Tensor:
    """Weights ``(1 - beta) / (1 - beta ** n_c)``, scaled to sum to C (Cui et al., CVPR 2019).

    They are the inverse of the effective number of samples: all 1 at ``beta=0``, inverse frequency at ``beta=1``, and
    constant for classes with far more than ``1 / (1 - beta)`` images. A class without images has weight 0, and the
    others are scaled to mean 1 among themselves.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        beta: In [0, 1]. The paper chose from 0.9, 0.99, 0.999 and 0.9999; the default is its choice for CIFAR-10 and
            that of deferred re-weighting.

    Returns:
        Weights, (C,), float64.

    Raises:
        ValueError: If the counts or beta are not valid.

    Source:
        https://github.com/richardaecn/class-balanced-loss (src/cifar_main.py) and
        https://github.com/kaidic/LDAM-DRW (cifar_train.py).
    """
    check_number("beta", beta, 0, 1)
    if beta == 1:
        return inverse_frequency_weights(class_counts)
    counts = check_class_counts(class_counts)
    # 1 - beta ** n loses its digits when beta is near 1; expm1(n log beta) keeps them.
    log_beta = torch.log1p(torch.tensor(-(1.0 - beta), dtype=torch.float64))
    effective_number = -torch.expm1(counts.clamp(min=1).double() * log_beta) / (1.0 - beta)
    return _normalised(1.0 / effective_number, counts > 0)
