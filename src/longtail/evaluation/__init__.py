"""Evaluation: accuracy overall, by shot group and class, calibration, expert agreement, from logits and targets."""

from longtail.evaluation.aggregation import ExpertAggregation, combine_experts, prediction_stability
from longtail.evaluation.calibration import (
    Calibration,
    calibration,
    calibration_of_logits,
    expected_calibration_error,
)
from longtail.evaluation.experts import answering_expert, expert_agreement, expert_assignment, experts_used
from longtail.evaluation.label_shift import accuracy_given_prior, class_prior, expected_accuracy
from longtail.evaluation.metrics import class_accuracies, confusion_matrix, metrics, top_k_accuracy
from longtail.evaluation.posterior import Posterior, calibration_gain, fit_posterior
from longtail.evaluation.prior import Prior, as_prior, read_prior
from longtail.evaluation.shots import shot_groups

__all__ = [
    "Calibration",
    "ExpertAggregation",
    "Posterior",
    "Prior",
    "accuracy_given_prior",
    "answering_expert",
    "as_prior",
    "calibration",
    "calibration_gain",
    "calibration_of_logits",
    "class_accuracies",
    "class_prior",
    "combine_experts",
    "confusion_matrix",
    "expected_accuracy",
    "expected_calibration_error",
    "expert_agreement",
    "expert_assignment",
    "experts_used",
    "fit_posterior",
    "metrics",
    "prediction_stability",
    "read_prior",
    "shot_groups",
    "top_k_accuracy",
]
