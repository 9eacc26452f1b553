"""Where one loss must become another: value and gradient."""

from __future__ import annotations

import pytest
import torch
from loss_table import COUNTS, MODULES, batch, value_and_grad

from longtail.losses import (
    BalancedSoftmaxLoss,
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
    post_hoc_logit_adjustment,
)

CE = CrossEntropyLoss(COUNTS)


def binary_cross_entropy(logits, targets):
    labels = torch.nn.functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
    summed = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    return summed / len(logits)


PAIRS = {
    "BSCE is LA(tau=1)": (BalancedSoftmaxLoss(COUNTS), LogitAdjustmentLoss(COUNTS)),
    "BSCE is VS(gamma=0, tau=1)": (BalancedSoftmaxLoss(COUNTS), VSLoss(COUNTS, 0, 1)),
    "VS(tau=0) is CDT": (VSLoss(COUNTS, 0.2, 0), CDTLoss(COUNTS, 0.2)),
    "SEQL(gamma=0) is CE": (SoftmaxEqualizationLoss(COUNTS, 0, 1), CE),
    "SEQL(threshold=0) is CE": (SoftmaxEqualizationLoss(COUNTS, 1, 0), CE),
    "LDAM(max_m=0) is CE of scaled cosines": (LDAMLoss(COUNTS, 0, 7), lambda z, y: CE(7 * z, y)),
    "softmax focal(gamma=0) is CE": (FocalLoss(COUNTS, 0), CE),
    "sigmoid focal(gamma=0) is BCE": (FocalLoss(COUNTS, 0, "sigmoid"), binary_cross_entropy),
    "CB softmax(beta=0) is CE": (CBLoss(COUNTS, 0), CE),
    "CB sigmoid(beta=0) is BCE": (CBLoss(COUNTS, 0, "sigmoid"), binary_cross_entropy),
    "CB focal(beta=0) is sigmoid focal": (CBLoss(COUNTS, 0, "focal", 2), FocalLoss(COUNTS, 2, "sigmoid")),
    "CB softmax(beta=0) is CE with an absent class": (CBLoss([9, 4, 2, 1, 0], 0), lambda z, y: CE(z, y)),
    "LAS(0, 0) is CE": (LabelAwareSmoothingLoss(COUNTS, 0, 0), CE),
    "LAS(e, e) is label smoothing": (LabelAwareSmoothingLoss(COUNTS, 0.1, 0.1), LabelSmoothingLoss(COUNTS)),
    "label smoothing is PyTorch's": (
        LabelSmoothingLoss(COUNTS, 0.2),
        lambda z, y: torch.nn.functional.cross_entropy(z, y, label_smoothing=0.2),
    ),
    "CDT(gamma=0) is CE": (CDTLoss(COUNTS, 0), CE),
    "LA(tau=0) is CE": (LogitAdjustmentLoss(COUNTS, 0), CE),
    "LAS of equal counts is smoothing by head": (
        LabelAwareSmoothingLoss([7] * 5, 0.3, 0.1),
        LabelSmoothingLoss(COUNTS, 0.3),
    ),
    "LDAM of equal counts has one margin": (
        LDAMLoss([7] * 5, 0.5, 7),
        lambda z, y: CE(7 * (z - 0.5 * torch.nn.functional.one_hot(y, 5)), y),
    ),
    **{
        f"{name} of equal counts is CE": (MODULES[name]([7] * 5), CE)
        for name in ("cb_softmax", "balanced_softmax", "logit_adjustment", "seql", "cdt", "vs")
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_two_are_one(name):
    left, right = PAIRS[name]
    logits, targets = batch()
    # CB's weight of an absent class is 0: leave it out of the labels.
    targets = targets.clamp(max=3) if "absent" in name else targets
    value, grad = value_and_grad(lambda z: left(z, targets), logits)
    expected, expected_grad = value_and_grad(lambda z: right(z, targets), logits)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-10)


def test_post_hoc_adjustment_undoes_what_the_loss_adds():
    logits, targets = batch()
    adjusted = post_hoc_logit_adjustment(logits, COUNTS, 1.5)
    torch.testing.assert_close(LogitAdjustmentLoss(COUNTS, 1.5)(adjusted, targets), CE(logits, targets))


def test_post_hoc_adjustment_lifts_an_absent_class_no_more_than_the_rarest():
    lifted = post_hoc_logit_adjustment(torch.zeros(2, 3, 4), [100, 10, 1, 0])
    assert lifted.shape == (2, 3, 4)
    assert lifted.dtype == torch.float32
    assert (lifted[..., 3] == lifted[..., 2]).all()
    assert (lifted[..., 2] > lifted[..., 1]).all()


def test_post_hoc_adjustment_refuses_other_numbers_of_classes():
    with pytest.raises(ValueError, match="must have 4 classes"):
        post_hoc_logit_adjustment(torch.zeros(2, 3), [100, 10, 1, 0])
