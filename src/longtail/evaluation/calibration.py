"""Calibration: does a confidence of 80 % mean that 80 % of the answers are right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longtail.evaluation.checks import check_logits, softmax

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram and what is read off it; all values within 0..1.

    Attributes:
        counts: Answers in each confidence bin, (bins,).
        accuracies: Share of right answers in each bin, (bins,); 0 in an empty bin.
        confidences: Mean confidence in each bin, (bins,); 0 in an empty bin.
    """

    counts: NDArray[np.int64]
    accuracies: Floats
    confidences: Floats

    @property
    def expected_error(self) -> float:
        """ECE: mean gap between accuracy and confidence, weighted by the bins' counts."""
        gaps = np.abs(self.accuracies - self.confidences)
        return float((self.counts * gaps).sum() / max(self.counts.sum(), 1))

    @property
    def maximum_error(self) -> float:
        """MCE: the largest gap between accuracy and confidence in any bin."""
        return float(np.abs(self.accuracies - self.confidences).max())


def calibration(confidences: ArrayLike, correct: ArrayLike, bins: int = 15) -> Calibration:
    """Sort answers into equal confidence bins, open at the left and closed at the right.

    Args:
        confidences: Confidence of each answer, (N,), within 0..1. One of exactly 0 falls into no bin, as in MiSLAS.
        correct: Whether the answer is right, (N,), bool.
        bins: Number of bins; 15 in the papers.

    Raises:
        ValueError: For shapes that differ, confidences outside 0..1 or fewer than one bin.

    Source: github.com/dvlab-research/MiSLAS, utils/metric.py.
    """
    confidence = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if confidence.ndim != 1 or confidence.shape != right.shape:
        raise ValueError(
            f"calibration: confidences and correct must both be (N,), got {confidence.shape} and {right.shape}"
        )
    if bins < 1:
        raise ValueError(f"calibration: bins must be at least 1, got {bins}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("calibration: confidences must lie within 0..1")
    # Bin b holds (edge[b], edge[b + 1]]; position 0 collects the confidences of exactly 0 and is dropped.
    position = np.digitize(confidence, np.linspace(0, 1, bins + 1), right=True)
    counts = np.bincount(position, minlength=bins + 1)[1:]
    divisor = np.maximum(counts, 1)
    accuracies = np.bincount(position, weights=right, minlength=bins + 1)[1:] / divisor
    mean_confidences = np.bincount(position, weights=confidence, minlength=bins + 1)[1:] / divisor
    return Calibration(counts, accuracies, mean_confidences)


def calibration_of_logits(logits: ArrayLike, targets: ArrayLike, bins: int = 15) -> Calibration:
    """Return the calibration of the softmax of ``logits`` (N, C) against ``targets`` (N,).

    Raises:
        ValueError: If the two are not of these shapes, hold invalid values, or ``bins`` is below 1.
    """
    scores, classes = check_logits(logits, targets)
    probabilities = softmax(scores)
    return calibration(probabilities.max(1).clip(0, 1), probabilities.argmax(1) == classes, bins)


def expected_calibration_error(logits: ArrayLike, targets: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error, ECE, within 0..1 (Guo et al., ICML 2017; 15 bins as in MiSLAS, CVPR 2021).

    Args:
        logits: Class scores whose softmax gives the confidences, (N, C).
        targets: True classes, (N,).
        bins: Number of equal confidence bins; 15 in the papers.

    Raises:
        ValueError: If the two are not of these shapes, hold invalid values, or ``bins`` is below 1.
    """
    return calibration_of_logits(logits, targets, bins).expected_error
