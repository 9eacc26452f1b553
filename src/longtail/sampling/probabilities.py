"""How often each class is drawn: the class probabilities of the sampling strategies.

All functions take the training images per class, (C,), and return (C,) probabilities in float64. A class without an
image has probability 0, and the others share what is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Counts = Sequence[int] | Tensor


def class_probabilities(class_counts: Counts, q: float) -> Tensor:
    """Draw class j with probability ``n_j ** q / sum_i n_i ** q`` (Kang et al., ICLR 2020, equation 1).

    Args:
        class_counts: Training images per class, (C,).
        q: 1 is instance-balanced, 0 class-balanced, 1/2 square-root sampling.

    Raises:
        ValueError: ``q`` is not finite, or no class has an image.
    """
    if not math.isfinite(q):
        raise ValueError(f"class_probabilities: q must be finite, got {q}")
    counts = _checked(class_counts)
    # Relative to the largest class, so that no power overflows.
    return _normalised(torch.where(counts > 0, (counts / counts.max()) ** q, 0.0))


def progressive_probabilities(class_counts: Counts, t: float) -> Tensor:
    """Blend instance-balanced into class-balanced sampling: ``(1 - t) n_j / N + t / C`` (Kang et al., ICLR 2020).

    Args:
        class_counts: Training images per class, (C,).
        t: 0 is instance-balanced, 1 class-balanced; the paper's code takes ``epoch / (epochs - 1)``, 0-based.

    Raises:
        ValueError: ``t`` is outside 0..1, or no class has an image.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"progressive_probabilities: t must lie in 0..1, got {t}")
    return (1 - t) * class_probabilities(class_counts, 1) + t * class_probabilities(class_counts, 0)


def reverse_probabilities(class_counts: Counts) -> Tensor:
    """Draw class j with probability in proportion to ``1 / n_j`` (BBN's reversed sampler; Zhou et al., CVPR 2020).

    Args:
        class_counts: Training images per class, (C,).

    Raises:
        ValueError: No class has an image.
    """
    return class_probabilities(class_counts, -1)


def effective_number_probabilities(class_counts: Counts, beta: float = 0.9999) -> Tensor:
    """Draw images by their class's inverse effective number: class j gets ``n_j (1 - beta) / (1 - beta ** n_j)``.

    Each image has the weight of the class-balanced loss (Cui et al., CVPR 2019); this is the "Resample" rule of
    LDAM-DRW (Cao et al., NeurIPS 2019).

    Args:
        class_counts: Training images per class, (C,).
        beta: 0 is instance-balanced, towards 1 class-balanced; LDAM-DRW uses 0.9999.

    Raises:
        ValueError: ``beta`` is outside 0..1, or no class has an image.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"effective_number_probabilities: beta must lie in 0..1, got {beta}")
    if beta in (0, 1):  # the limits, where the formula is 0/0 or takes log 0
        return class_probabilities(class_counts, 1 - beta)
    counts = _checked(class_counts)
    volume = -torch.expm1(counts * math.log(beta))  # 1 - beta ** n without cancellation
    return _normalised(torch.where(counts > 0, counts / volume, 0.0))


def _checked(class_counts: Counts) -> Tensor:
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    if counts.ndim != 1 or not bool((counts >= 0).all()) or not bool((counts > 0).any()):
        raise ValueError(f"class_counts must be (C,), not negative, with at least one image; got {counts.tolist()}")
    return counts


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum()
