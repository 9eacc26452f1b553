"""The four reductions against loops, and against PyTorch's weighted mean."""

from __future__ import annotations

import pytest
import torch
from loss_table import COUNTS, batch

from longtail.losses import CrossEntropyLoss, effective_number_weights, reduce_losses

LOSSES = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 1])
CLASS_WEIGHTS = torch.tensor([0.5, 3.0], dtype=torch.float64)
SAMPLE_WEIGHTS = torch.tensor([1.0, 0.25, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("classes", "samples", "batch_mean", "weight_sum", "total"),
    [
        (None, None, 7 / 3, 7 / 3, 7),
        (CLASS_WEIGHTS, None, 18.5 / 3, 18.5 / 6.5, 18.5),
        (None, SAMPLE_WEIGHTS, 9.5 / 3.25, 9.5 / 3.25, 9.5),
        (CLASS_WEIGHTS, SAMPLE_WEIGHTS, 26 / 3.25, 26 / 7.25, 26),
    ],
)
def test_each_reduction_divides_by_what_it_says(classes, samples, batch_mean, weight_sum, total):
    def reduced(reduction):
        return reduce_losses(LOSSES, TARGETS, classes, samples, reduction)

    assert reduced("batch").item() == pytest.approx(batch_mean)
    assert reduced("weight_sum").item() == pytest.approx(weight_sum)
    assert reduced("sum").item() == pytest.approx(total)
    assert reduced("none").shape == (3,)
    assert reduced("none").sum().item() == pytest.approx(total)


def test_weight_sum_is_the_weighted_mean_of_pytorch():
    logits, targets = batch()
    weights = effective_number_weights(COUNTS)
    ours = CrossEntropyLoss(COUNTS, class_weights=weights, reduction="weight_sum")(logits, targets)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, targets, weight=weights))


@pytest.mark.parametrize("reduction", ["batch", "weight_sum"])
def test_a_batch_of_weight_0_has_loss_0_and_gradient_0(reduction):
    logits, _ = batch()
    logits.requires_grad_()
    targets = torch.zeros(len(logits), dtype=torch.int64)
    loss = CrossEntropyLoss(COUNTS, class_weights=[0, 1, 1, 1, 1], reduction=reduction)
    for weights in (None, torch.zeros(len(logits))):
        value = loss(logits, targets, weights)
        (grad,) = torch.autograd.grad(value, logits)
        assert value.item() == 0
        assert not grad.any()


def test_gradients_flow_through_sample_weights():
    weights = SAMPLE_WEIGHTS.clone().requires_grad_()
    reduce_losses(LOSSES, TARGETS, None, weights, "sum").backward()
    assert torch.equal(weights.grad, LOSSES)
