"""Label shift: classes that are otherwise frequent at test time, and the accuracy that is expected then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from longtail.errors import UsageError
from longtail.evaluation.posterior import Posterior

Distribution = Literal["balanced", "forward", "backward"]

_MOST_TO_MATCH = 60_000_000  # the 50,000 test images and 1,000 classes of ImageNet-LT are within


def class_prior(class_counts: Sequence[int], distribution: Distribution, imbalance: float) -> NDArray[np.float64]:
    """Return how often each class occurs at test time, (C,), summing to 1.

    Args:
        class_counts: Training images per class, (C,); their order is what forward and backward refer to.
        distribution: ``balanced``; ``forward``: exponential, largest training class first; ``backward``: the reverse.
        imbalance: Most frequent over rarest class.

    Raises:
        UsageError: The imbalance is below 1.
    """
    if not (np.isfinite(imbalance) and imbalance >= 1):
        raise UsageError(f"test imbalance is {imbalance:g}; it must be a finite number of at least 1")
    size = len(class_counts)
    if distribution == "balanced" or size == 1:
        return np.full(size, 1 / size)
    # Equal counts rank in label order, as in the shot groups.
    rank = np.argsort(np.argsort(-np.asarray(class_counts), kind="stable"), kind="stable")
    if distribution == "backward":
        rank = size - 1 - rank
    weights = imbalance ** (-rank / (size - 1))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def expected_accuracy(per_class: Sequence[float | None], prior: NDArray[np.float64]) -> float:
    """Return the accuracy under a class prior, in percent; classes without test images are left out."""
    known = np.array([value is not None for value in per_class])
    values = np.array([0.0 if value is None else value for value in per_class])
    return float((prior * values)[known].sum() / prior[known].sum())


def accuracy_given_prior(
    posterior: Posterior, logits: NDArray[Any], targets: NDArray[Any], prior: NDArray[np.float64]
) -> dict[str, float | None]:
    """Return the expected accuracy, in percent, of a model that is told how frequent the classes are.

    Args:
        posterior: Of the model; its two numbers may be fitted on the same images.
        logits: Of the test images, (N, C).
        targets: Their classes, (N,).
        prior: How often each class occurs, (C,).

    Returns:
        ``prior``: with `Posterior.probabilities`; ``match``: with `Posterior.matched`, None where there are so many
        logits that it would take minutes.
    """
    images = np.bincount(targets, minlength=len(prior))
    prior = np.where(images > 0, prior, 0)  # of classes without test images nothing is expected
    weights = (prior / np.maximum(images, 1))[targets]

    def accuracy(probabilities: NDArray[np.float64]) -> float:
        return 100 * float(weights @ (probabilities.argmax(1) == targets) / weights.sum())

    matched = posterior.matched(logits, prior, weights) if logits.size <= _MOST_TO_MATCH else None
    return {
        "prior": accuracy(posterior.probabilities(logits, prior)),
        "match": None if matched is None else accuracy(matched),
    }
