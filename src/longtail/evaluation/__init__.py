"""Evaluation: accuracy overall, by shot group and class, calibration, expert agreement, from logits and targets."""

from longtail.evaluation.calibration import (
    Calibration,
    calibration,
    calibration_of_logits,
    expected_calibration_error,
)
from longtail.evaluation.experts import expert_agreement
from longtail.evaluation.metrics import class_accuracies, confusion_matrix, metrics, top_k_accuracy
from longtail.evaluation.shots import shot_groups

__all__ = [
    "Calibration",
    "calibration",
    "calibration_of_logits",
    "class_accuracies",
    "confusion_matrix",
    "expected_calibration_error",
    "expert_agreement",
    "metrics",
    "shot_groups",
    "top_k_accuracy",
]
