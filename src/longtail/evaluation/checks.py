"""The checks and conversions that all of the evaluation shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def check_logits(logits: ArrayLike, targets: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Return logits (N, C) and targets (N,) as arrays.

    Raises:
        ValueError: If a shape is wrong, N is 0, a target is not in 0..C-1, or a logit is NaN or +inf (-inf is allowed:
            a class that is never predicted).
    """
    scores = np.asarray(logits)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    classes = np.asarray(targets)
    if scores.ndim != 2 or classes.shape != scores.shape[:1] or scores.size == 0:
        raise ValueError(
            "evaluation: logits must be (N, C) and targets (N,) with N and C at least 1, "
            f"got {scores.shape} and {classes.shape}"
        )
    if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0 or classes.max() >= scores.shape[1]:
        raise ValueError(
            f"evaluation: targets must be integers in 0..{scores.shape[1] - 1}, "
            f"got {classes.dtype} in {classes.min()}..{classes.max()}"
        )
    top = scores.max(1)
    if not np.isfinite(top).all():
        bad = int(np.flatnonzero(~np.isfinite(top))[0])
        raise ValueError(
            f"evaluation: logits of image {bad} hold NaN or +inf, or no finite value: has training diverged?"
        )
    return scores, classes.astype(np.int64)


def softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the class probabilities (N, C) of scores (N, C)."""
    shifted: NDArray[np.float64] = scores.astype(np.float64) - scores.max(1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(1, keepdims=True)
    return shifted
