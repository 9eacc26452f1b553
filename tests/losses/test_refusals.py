"""Wrong batches and wrong arguments are refused, with the rule that they break."""

from __future__ import annotations

import pytest
import torch
from loss_table import COUNTS

from longtail.losses import (
    CBLoss,
    CDTLoss,
    CrossEntropyLoss,
    FocalLoss,
    LabelAwareSmoothingLoss,
    LabelSmoothingLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
    SoftmaxEqualizationLoss,
    VSLoss,
)

C = len(COUNTS)


@pytest.mark.parametrize(
    ("logits", "targets", "weights", "rule"),
    [
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), None, r"logits must have shape \(batch, 5\)"),
        (torch.zeros(3, 2, 5), torch.zeros(2, dtype=torch.int64), None, "logits must have shape"),
        (torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), None, "floating point"),
        (torch.zeros(2, 5), torch.zeros(3, dtype=torch.int64), None, r"targets must be class indices of shape \(2,\)"),
        (torch.zeros(2, 5), torch.zeros(2, 5), None, "sample_weights"),
        (torch.zeros(2, 5), torch.zeros(2, dtype=torch.int32), None, r"use targets.long\(\)"),
        (torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64), torch.ones(1), r"sample_weights must have shape \(2,\)"),
    ],
)
def test_a_wrong_batch_is_refused_with_its_rule(logits, targets, weights, rule):
    with pytest.raises(ValueError, match=rule):
        CrossEntropyLoss(COUNTS)(logits, targets, weights)


@pytest.mark.parametrize("target", [-1, -100, C])
def test_no_label_is_silently_ignored(target):
    with pytest.raises((RuntimeError, IndexError)):
        CrossEntropyLoss(COUNTS)(torch.zeros(1, C), torch.tensor([target]))


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: CrossEntropyLoss([5]), "at least 2 classes"),
        (lambda: CrossEntropyLoss(COUNTS, reduction="mean"), "reduction must be one of 'batch'"),
        (lambda: CrossEntropyLoss(COUNTS, class_weights=[1, 2]), r"class_weights must have shape \(5,\)"),
        (lambda: CrossEntropyLoss(COUNTS, class_weights=[1, 2, 3, 4, -1]), "class 4"),
        (lambda: CrossEntropyLoss(COUNTS).with_class_weights([1] * C, "mean"), "reduction must be one of"),
        (lambda: FocalLoss(COUNTS, -1), "gamma must be a finite number >= 0, got -1"),
        (lambda: FocalLoss(COUNTS, form="sum"), "form must be one of 'softmax', 'sigmoid', got 'sum'"),
        (lambda: CBLoss(COUNTS, 2), r"beta must be a finite number in \[0, 1\]"),
        (lambda: CBLoss(COUNTS, form="hinge"), "form"),
        (lambda: CBLoss(COUNTS, gamma=-1), "gamma"),
        (lambda: LDAMLoss(COUNTS, -0.5), "max_m"),
        (lambda: LDAMLoss(COUNTS, s=float("inf")), "s must be"),
        (lambda: LogitAdjustmentLoss(COUNTS, -1), "tau"),
        (lambda: SoftmaxEqualizationLoss(COUNTS, 1.5), "gamma"),
        (lambda: SoftmaxEqualizationLoss(COUNTS, 0.9, 60), "threshold"),
        (lambda: LabelSmoothingLoss(COUNTS, 1.5), "smoothing"),
        (lambda: LabelAwareSmoothingLoss(COUNTS, 1.5), "head"),
        (lambda: LabelAwareSmoothingLoss(COUNTS, 0.3, -0.1), "tail"),
        (lambda: LabelAwareSmoothingLoss(COUNTS, shape="exp"), "shape"),
        (lambda: LabelAwareSmoothingLoss(COUNTS, off_target="none"), "off_target"),
        (lambda: CDTLoss(COUNTS, -1), "gamma"),
        (lambda: VSLoss(COUNTS, -1), "gamma"),
        (lambda: VSLoss(COUNTS, 0.3, -1), "tau"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_rule(build, rule):
    with pytest.raises(ValueError, match=rule):
        build()
