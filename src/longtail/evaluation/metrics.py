"""The numbers of a run: overall, by shot group, by class, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sklearn_metrics

from longtail.evaluation.calibration import expected_calibration_error
from longtail.evaluation.checks import check_logits
from longtail.evaluation.shots import ShotRule, shot_groups


def metrics(
    logits: ArrayLike, targets: ArrayLike, class_counts: Sequence[int] | ArrayLike, rule: ShotRule = "kang"
) -> dict[str, Any]:
    """Evaluate predictions on a test set; ready for JSON.

    Args:
        logits: Class scores of the test images, (N, C).
        targets: Their classes, (N,).
        class_counts: Training images of each class, (C,), for the shot groups.
        rule: Convention of the shot groups, see :func:`~longtail.evaluation.shot_groups`.

    Returns:
        All in percent, ``None`` where nothing is defined:

        - ``top1``, ``top5`` (``None`` with five classes or fewer): share of test images;
        - ``many``, ``medium``, ``few``: mean of the class accuracies (recalls) of each group;
        - ``per_class``: accuracy of each class, ``None`` for one that the test set lacks;
        - ``balanced_accuracy``, ``harmonic_mean``, ``geometric_mean``: means of the class accuracies, the latter two 0
          as soon as one class is never recognised;
        - ``worst_class``: ``{"class": index, "accuracy": percent}`` of the lowest class accuracy;
        - ``ece``: expected calibration error, 15 bins.

    Raises:
        ValueError: If shapes do not fit or the values are invalid.
    """
    scores, classes = check_logits(logits, targets)
    num_classes = scores.shape[1]
    groups = shot_groups(class_counts, rule)
    if sum(map(len, groups.values())) != num_classes:
        raise ValueError(
            f"metrics: class_counts must have one count per class, got {len(np.asarray(class_counts))} "
            f"for {num_classes} classes"
        )
    accuracies = 100 * class_accuracies(scores.argmax(1), classes, num_classes)
    present = accuracies[~np.isnan(accuracies)]
    worst = int(np.nanargmin(accuracies))
    return {
        "top1": 100 * top_k_accuracy(scores, classes, 1),
        "top5": 100 * top_k_accuracy(scores, classes, 5) if num_classes > 5 else None,
        **{name: _mean_or_none(accuracies[members]) for name, members in groups.items()},
        "per_class": [None if np.isnan(value) else float(value) for value in accuracies],
        "balanced_accuracy": float(present.mean()),
        "harmonic_mean": float(len(present) / (1 / present).sum()) if present.all() else 0.0,
        "geometric_mean": float(np.exp(np.log(present).mean())) if present.all() else 0.0,
        "worst_class": {"class": worst, "accuracy": float(accuracies[worst])},
        "ece": 100 * expected_calibration_error(scores, classes),
    }


def class_accuracies(predictions: ArrayLike, targets: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """Return the accuracy (recall) of each class, (C,), within 0..1; NaN for a class without test images.

    Args:
        predictions: Predicted classes, (N,).
        targets: True classes, (N,).
        num_classes: Number of classes C.
    """
    recalls: NDArray[np.float64] = sklearn_metrics.recall_score(
        targets, predictions, labels=np.arange(num_classes), average=None, zero_division=np.nan
    )
    return recalls


def top_k_accuracy(logits: NDArray[np.floating], targets: NDArray[np.integer], k: int) -> float:
    """Return the share of images, within 0..1, whose class is among the ``k`` highest logits (N, C).

    Equal logits rank in label order, as in ``argmax``, so constant logits earn nothing. (Scikit-learn's function sorts
    whole rows, which takes many times as long on thousands of classes.)
    """
    own = np.take_along_axis(logits, targets[:, None], 1)
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(1)
    return float((rank < k).mean())


def confusion_matrix(logits: ArrayLike, targets: ArrayLike) -> NDArray[np.int64]:
    """Count the test images by true class (rows) and predicted class (columns): (C, C).

    Args:
        logits: Class scores, (N, C).
        targets: True classes, (N,).

    Raises:
        ValueError: If shapes do not fit or the values are invalid.
    """
    scores, classes = check_logits(logits, targets)
    matrix: NDArray[np.int64] = sklearn_metrics.confusion_matrix(
        classes, scores.argmax(1), labels=np.arange(scores.shape[1])
    )
    return matrix


def _mean_or_none(accuracies: NDArray[np.float64]) -> float | None:
    """Return the unweighted mean over the classes that the test set has; None if it has none of them."""
    present = accuracies[~np.isnan(accuracies)]
    return float(present.mean()) if len(present) else None
