"""What each expert and their average get right and where they differ; how far routers let images go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longtail.evaluation.checks import check_logits
from longtail.evaluation.metrics import class_accuracies, top_k_accuracy

Bools = NDArray[np.bool_]


def expert_agreement(
    expert_logits: ArrayLike, targets: ArrayLike, average_logits: ArrayLike | None = None
) -> dict[str, Any]:
    """Compare each expert with the average of all, and the experts with each other; ready for JSON.

    The gain of the average over an expert is arithmetic: the images that the expert gets wrong and the average right,
    less those that the expert gets right and the average wrong, over all images.

    Args:
        expert_logits: Class scores of each expert, (E, N, C).
        targets: True classes, (N,).
        average_logits: Class scores of the answer that the experts give together, (N, C); None: the mean of theirs.

    Returns:
        Accuracies in percent, ``None`` where nothing is defined:

        - ``images``: N;
        - ``average``: ``top1``, ``top5`` (``None`` with five classes or fewer), ``per_class``, ``correct`` (images);
        - ``experts``: for each the same, and ``right_average_wrong``, ``wrong_average_right`` (images),
          ``average_gain`` (``average`` minus its ``top1``);
        - ``mean_expert_top1``, ``best_expert_top1``;
        - ``disagreement``: share of images on which two experts predict different classes, (E, E);
        - ``error_correlation``: Pearson correlation of two experts' errors, (E, E), ``None`` where one of them is
          always right or always wrong;
        - ``mean_disagreement``, ``mean_error_correlation``: means over the pairs, ``None`` for one expert.

    Raises:
        ValueError: If shapes do not fit or the values are invalid.
    """
    scores = np.asarray(expert_logits)
    if scores.ndim != 3 or len(scores) == 0:
        raise ValueError(f"expert_agreement: expert_logits must be (E, N, C) with E at least 1, got {scores.shape}")
    together = scores.mean(0) if average_logits is None else np.asarray(average_logits)
    if together.shape != scores.shape[1:]:
        raise ValueError(
            f"expert_agreement: average_logits must be {scores.shape[1:]} for expert_logits {scores.shape}, "
            f"got {together.shape}"
        )
    classes = check_logits(together, targets)[1]
    average, average_right = _accuracies(together, classes)
    experts, right = [], []
    for each in scores:
        own, own_right = _accuracies(check_logits(each, targets)[0], classes)
        experts.append({**own, **_against(own_right, average_right)})
        right.append(own_right)
    tops = [expert["top1"] for expert in experts]
    disagreement = _disagreement(scores.argmax(2))
    correlation = _error_correlation(np.stack(right))
    return {
        "images": len(classes),
        "average": average,
        "experts": experts,
        "mean_expert_top1": float(np.mean(tops)),
        "best_expert_top1": max(tops),
        "disagreement": disagreement.tolist(),
        "error_correlation": [[None if np.isnan(value) else float(value) for value in row] for row in correlation],
        "mean_disagreement": _mean_over_pairs(disagreement),
        "mean_error_correlation": _mean_over_pairs(correlation),
    }


def answering_expert(expert_logits: ArrayLike, logits: ArrayLike) -> int | None:
    """Return the 0-based expert, of expert logits (E, N, C), whose logits are the answer (N, C); None: no single one.

    Heads that learn from different targets are no ensemble: the run answers by one of them. Where routers left experts
    out (NaN), they are one, even if all images stop at the first.

    Args:
        expert_logits: Class scores of each expert, (E, N, C).
        logits: Class scores of the answer, (N, C).
    """
    scores, answer = np.asarray(expert_logits), np.asarray(logits)
    if np.isnan(scores).any():
        return None
    return next((k for k, each in enumerate(scores) if np.array_equal(each, answer)), None)


def experts_used(expert_logits: ArrayLike) -> NDArray[np.int64]:
    """Return how many experts answered each image, (N,), from expert logits (E, N, C) with NaN where one was not asked.

    Raises:
        ValueError: The shape is wrong.
    """
    scores = np.asarray(expert_logits)
    if scores.ndim != 3 or len(scores) == 0:
        raise ValueError(f"experts_used: expert_logits must be (E, N, C) with E at least 1, got {scores.shape}")
    used: NDArray[np.int64] = (~np.isnan(scores).all(2)).sum(0)
    return used


def expert_assignment(
    expert_logits: ArrayLike, targets: ArrayLike, average_logits: ArrayLike, costs: Sequence[int]
) -> dict[str, Any]:
    """Tell how far images went through experts with routers, and what that saves; ready for JSON.

    Args:
        expert_logits: Class scores of each expert, (E, N, C), NaN where it was not asked.
        targets: True classes, (N,).
        average_logits: Class scores of the answer, (N, C).
        costs: Multiplications for one image by the number of experts asked, (E,).

    Returns:
        - ``experts``: E; ``experts_used``: mean over images, from 1 to E;
        - ``gflops``: mean over images, ``gflops_of_all``: of an image that all experts see; in billions of
          multiplications, each counted together with its addition, as in the papers;
        - ``by_experts``: for each number of experts its ``share`` of the images and their ``top1``, in percent
          (``None`` where there are none).

    Raises:
        ValueError: If shapes do not fit or the values are invalid.
    """
    used = experts_used(expert_logits)
    answers, classes = check_logits(average_logits, targets)
    if len(used) != len(classes) or len(costs) != len(np.asarray(expert_logits)):
        raise ValueError(
            f"expert_assignment: {len(used)} images and {len(costs)} costs do not fit the targets and experts"
        )
    right = answers.argmax(1) == classes
    stops = [used == number for number in range(1, len(costs) + 1)]
    return {
        "experts": len(costs),
        "experts_used": float(used.mean()),
        "gflops": float(np.asarray(costs, np.float64)[used - 1].mean() / 1e9),
        "gflops_of_all": costs[-1] / 1e9,
        "by_experts": [
            {"share": 100 * float(at.mean()), "top1": 100 * float(right[at].mean()) if at.any() else None}
            for at in stops
        ],
    }


def _accuracies(scores: NDArray[np.floating], classes: NDArray[np.int64]) -> tuple[dict[str, Any], Bools]:
    """Return the accuracies of one answer and on which images it is right."""
    right: Bools = scores.argmax(1) == classes
    num_classes = scores.shape[1]
    recalls = 100 * class_accuracies(scores.argmax(1), classes, num_classes)
    return {
        "top1": 100 * float(right.mean()),
        "top5": 100 * top_k_accuracy(scores, classes, 5) if num_classes > 5 else None,
        "per_class": [None if np.isnan(value) else float(value) for value in recalls],
        "correct": int(right.sum()),
    }, right


def _against(right: Bools, average_right: Bools) -> dict[str, Any]:
    """Count on which images an expert and the average differ in being right."""
    lost, won = int((right & ~average_right).sum()), int((~right & average_right).sum())
    return {"right_average_wrong": lost, "wrong_average_right": won, "average_gain": 100 * (won - lost) / len(right)}


def _disagreement(predictions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of images with different predictions for each pair, (E, E), from predictions (E, N)."""
    shares: NDArray[np.float64] = (predictions[:, None] != predictions[None]).mean(2)
    return shares


def _error_correlation(right: Bools) -> NDArray[np.float64]:
    """Return the correlation of errors for each pair, (E, E), from (E, N); NaN where one has no variance."""
    centred = right - right.mean(1, keepdims=True)
    spread = np.sqrt((centred**2).mean(1))
    product = np.outer(spread, spread)
    covariance = centred @ centred.T / right.shape[1]
    correlation: NDArray[np.float64] = np.divide(
        covariance, product, out=np.full_like(product, np.nan), where=product > 0
    )
    return correlation


def _mean_over_pairs(matrix: NDArray[np.float64]) -> float | None:
    """Return the mean above the diagonal; None where there is no value."""
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    pairs = pairs[~np.isnan(pairs)]
    return float(pairs.mean()) if len(pairs) else None
