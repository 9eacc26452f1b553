"""What a run answered on its test images: everything that the page tells of single images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.evaluation import expert_agreement, expert_assignment
from longtail.networks import multiplications
from longtail.run import Run


@dataclass(frozen=True)
class Answers:
    """A run's answers; the logits themselves are not kept, since those of thousands of classes fill the memory.

    Attributes:
        targets: True classes, (N,).
        predictions: Predicted classes, (N,).
        confidences: Probability of the predicted class, (N,), within 0..1.
        agreement: Of a run with experts, from `longtail.evaluation.expert_agreement`.
        assignment: Of a run with experts and routers, from `longtail.evaluation.expert_assignment`.
    """

    targets: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float64]
    agreement: Mapping[str, Any] | None = None
    assignment: Mapping[str, Any] | None = None

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right, (N,)."""
        right: NDArray[np.bool_] = self.predictions == self.targets
        return right


def read_answers(run: Run) -> Answers:
    """Read the answers of a finished run.

    Raises:
        LongtailError: They are missing, damaged, or of another run.
    """
    found = run.test_logits(experts=True)
    logits, targets = found["logits"], found["targets"]
    experts = _experts(run, found.get("expert_logits"), targets, logits)
    return Answers(targets, logits.argmax(1), _confidences(logits), **experts)


def _confidences(logits: NDArray[np.floating], rows: int = 2048) -> NDArray[np.float64]:
    """Return the softmax probability of the highest logit, (N,), some rows at a time: thousands of classes are many."""
    found = [np.zeros(0)]
    for start in range(0, len(logits), rows):
        part = logits[start : start + rows].astype(np.float64)
        found.append(1 / np.exp(part - part.max(1, keepdims=True)).sum(1))  # exp(0), over the sum
    return np.concatenate(found)


def _experts(
    run: Run, each: NDArray[Any] | None, targets: NDArray[np.int64], logits: NDArray[Any]
) -> dict[str, Mapping[str, Any]]:
    """Compare the experts, or tell how far images went where routers chose between them."""
    if each is None:
        return {}
    if not np.isnan(each).any():
        return {"agreement": expert_agreement(each, targets, logits)}
    costs = multiplications(run.network, run.task.input_shape)
    return {"assignment": expert_assignment(each, targets, logits, costs)}
