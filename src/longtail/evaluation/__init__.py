"""Evaluation: accuracy overall, by shot group and by class, and calibration, from logits and targets."""

from longtail.evaluation.calibration import (
    Calibration,
    calibration,
    calibration_of_logits,
    expected_calibration_error,
)
from longtail.evaluation.metrics import class_accuracies, confusion_matrix, metrics, top_k_accuracy
from longtail.evaluation.shots import shot_groups

__all__ = [
    "Calibration",
    "calibration",
    "calibration_of_logits",
    "class_accuracies",
    "confusion_matrix",
    "expected_calibration_error",
    "metrics",
    "shot_groups",
    "top_k_accuracy",
]
