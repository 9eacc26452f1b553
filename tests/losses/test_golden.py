"""The losses against what the authors' published code computes; tests/golden/losses.json names its sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loss_table import golden, golden_array, value_and_grad
from torch import Tensor

from longtail.losses import (
    BalancedSoftmaxLoss,
    CBLoss,
    CDTLoss,
    CrossEntropyLoss,
    FocalLoss,
    LabelAwareSmoothingLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
    VSLoss,
    cloud_sizes,
    effective_number_weights,
    gcl_loss,
    influence_balanced_loss,
    inverse_frequency_weights,
    ldam_margins,
    post_hoc_logit_adjustment,
    rare_classes,
    reduce_losses,
    softmax_equalization_loss,
)

Case = dict[str, Any]
Loss = Callable[[Tensor, Tensor], Tensor]


def _focal_softmax(case: Case) -> Loss:
    assert case["hyper"].get("class_weight") is None
    return FocalLoss(case["inputs"]["class_counts"], case["hyper"]["gamma"])


def _focal_ib_repository(case: Case) -> Loss:
    focal = FocalLoss(case["inputs"]["class_counts"], case["hyper"]["gamma"])
    return lambda logits, targets: 10 * focal(logits, targets)


def _focal_sigmoid(case: Case) -> Loss:
    counts, hyper = case["inputs"]["class_counts"], case["hyper"]
    weights = None
    if hyper.get("epoch", 0) > hyper.get("START_EPOCH", 0):
        weights = [min(counts) / n for n in counts]
    return FocalLoss(counts, hyper["gamma"], form="sigmoid", class_weights=weights)


def _cb_bot(case: Case) -> Loss:
    counts, hyper = case["inputs"]["class_counts"], case["hyper"]
    if "gamma" in hyper:
        return CBLoss(counts, hyper["beta"], "focal", hyper["gamma"])
    return CBLoss(counts, hyper["beta"], reduction="weight_sum")


def _cb_official(case: Case) -> Loss:
    form = case["id"].split("_")[1]
    return CBLoss(case["inputs"]["class_counts"], case["hyper"]["beta"], form, case["hyper"]["gamma"] or 0.0)


def _deferred_cross_entropy(case: Case) -> Loss:
    counts = case["inputs"]["class_counts"]
    return CrossEntropyLoss(counts).with_class_weights(effective_number_weights(counts, case["hyper"]["beta"]))


def _cost_sensitive(case: Case) -> Loss:
    counts = case["inputs"]["class_counts"]
    weights = inverse_frequency_weights(counts, case["hyper"]["gamma"])
    return CrossEntropyLoss(counts, class_weights=weights, reduction="weight_sum")


def _ldam(case: Case) -> Loss:
    counts, hyper = case["inputs"]["class_counts"], case["hyper"]
    if "extra" in case:
        margins = torch.tensor(case["extra"]["margins"], dtype=torch.float64)
        torch.testing.assert_close(ldam_margins(counts, hyper["max_m"]), margins, rtol=1e-11, atol=0)
    loss = LDAMLoss(counts, hyper["max_m"], hyper["s"])
    deferred = hyper.get("class_weight") is not None or hyper.get("epoch", 0) >= hyper.get("START_EPOCH", 1)
    return loss.with_class_weights(effective_number_weights(counts, 0.9999)) if deferred else loss


def _cdt(case: Case) -> Loss:
    loss = CDTLoss(case["inputs"]["class_counts"], case["hyper"]["gamma"])
    stored = torch.tensor(case["hyper"]["temperatures"], dtype=torch.float64)
    torch.testing.assert_close(loss.temperatures, stored, rtol=1e-11, atol=0)
    return loss


def _balanced_softmax(case: Case) -> Loss:
    return BalancedSoftmaxLoss(case["inputs"]["class_counts"])


def _label_aware_smoothing(case: Case) -> Loss:
    hyper = case["hyper"]
    loss = LabelAwareSmoothingLoss(
        case["inputs"]["class_counts"], hyper["smooth_head"], hyper["smooth_tail"], hyper["shape"]
    )
    stored = torch.tensor(hyper["eps_per_class"], dtype=torch.float64)
    torch.testing.assert_close(loss.smoothing_per_class, stored, rtol=1e-11, atol=1e-13)
    return loss


def _vs(case: Case) -> Loss:
    counts, hyper = case["inputs"]["class_counts"], case["hyper"]
    loss = VSLoss(counts, hyper["gamma"], hyper["tau"])
    return loss if hyper["class_weight"] is None else loss.with_class_weights(effective_number_weights(counts, 0.9999))


def _logit_adjustment(case: Case) -> Loss:
    return LogitAdjustmentLoss(case["inputs"]["class_counts"], case["hyper"]["tau"])


def _seql(case: Case) -> Loss:
    hyper = case["hyper"]
    rare = rare_classes(case["inputs"]["class_counts"], hyper["lambda"])
    assert rare.nonzero().flatten().tolist() == hyper["tail_classes"]
    drawn = torch.tensor([[digit == "1" for digit in row] for row in hyper["bernoulli_mask_01_rows"]])
    return lambda logits, targets: softmax_equalization_loss(logits, targets, rare, drawn).mean()


def _gcl(case: Case) -> Loss:
    hyper, inputs = case["hyper"], case["inputs"]
    assert not hyper["train_cls"]
    sizes, noise = cloud_sizes(inputs["class_counts"]), golden_array(inputs["noise"])
    weights = golden_array(hyper["class_weight"])

    def loss(cosines: Tensor, targets: Tensor) -> Tensor:
        losses = gcl_loss(cosines, targets, sizes, noise, s=hyper["s"], noise_mul=hyper["noise_mul"], m=hyper["m"])
        return reduce_losses(losses, targets, weights, reduction="weight_sum")

    return loss


# By the start of the case's id; the first that fits.
BUILDERS: dict[str, Callable[[Case], Loss]] = {
    "focal_softmax_": _focal_softmax,
    "focal_sigmoid_": _focal_sigmoid,
    "focal_ibrepo_": _focal_ib_repository,
    "cb_": _cb_bot,
    "cui_": _cb_official,
    "ce_drw_": _deferred_cross_entropy,
    "cost_sensitive_": _cost_sensitive,
    "ldam_": _ldam,
    "gcl_": _gcl,
    "cdt_": _cdt,
    "balanced_softmax_": _balanced_softmax,
    "las_": _label_aware_smoothing,
    "vs_": _vs,
    "la_official_": _logit_adjustment,
    "seql_": _seql,
}
CASES = golden("losses")
WITH_FEATURES = [case for case in CASES if case["id"].startswith("ib_")]
# The focal variant of IB is not offered.
LEFT_OUT = [case for case in CASES if case["id"].startswith("ibfocal_")]
LOGITS_ONLY = [case for case in CASES if case not in WITH_FEATURES and case not in LEFT_OUT]


def _assert_as_stored(case: Case, value: Tensor, **grads: Tensor) -> None:
    # Where the authors' code casts to float32 inside, it is no more exact than that.
    exact = case["output"]["dtype"] == "float64"
    tolerance = (1e-9 if exact else 2e-6) * max(1.0, abs(case["output"]["loss"]))
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(case["output"]["loss"], rel=0, abs=tolerance)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, golden_array(case["output"][f"grad_{name}"]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", LOGITS_ONLY, ids=lambda case: case["id"])
def test_value_and_gradient_are_those_of_the_published_code(case):
    loss = next(build for start, build in BUILDERS.items() if case["id"].startswith(start))(case)
    inputs = case["inputs"]
    logits = golden_array(inputs.get("logits", inputs.get("cosines")))
    targets = torch.tensor(inputs["targets"])
    value, grad = value_and_grad(lambda z: loss(z, targets), logits)
    _assert_as_stored(case, value, logits=grad)


@pytest.mark.parametrize("case", WITH_FEATURES, ids=lambda case: case["id"])
def test_influence_balanced_loss_is_that_of_the_published_code(case):
    hyper, counts = case["hyper"], case["inputs"]["class_counts"]
    targets = torch.tensor(case["inputs"]["targets"])
    logits = golden_array(case["inputs"]["logits"]).requires_grad_()
    features = golden_array(case["inputs"]["features"]).requires_grad_()
    losses = influence_balanced_loss(logits, targets, features, hyper["alpha"])
    value = reduce_losses(losses, targets, effective_number_weights(counts, 0.9999))
    value.backward()
    _assert_as_stored(case, value, logits=logits.grad, features=features.grad)


def test_every_stored_case_is_used_or_named_as_left_out():
    assert [case["id"] for case in LEFT_OUT] == ["ibfocal_c10"]
    assert len(LOGITS_ONLY) + len(WITH_FEATURES) + 1 == len(CASES) == 65


@pytest.mark.parametrize("case", [c for c in CASES if c["id"].startswith("la_")], ids=lambda case: case["id"])
def test_post_hoc_adjustment_predicts_what_the_published_code_predicts(case):
    logits = golden_array(case["inputs"]["logits"])
    adjusted = post_hoc_logit_adjustment(logits, case["inputs"]["class_counts"], case["hyper"]["tau"])
    assert adjusted.argmax(1).tolist() == case["output"]["posthoc_predictions_argmax_z_minus_log_prior_tau"]


@pytest.mark.parametrize("case", [c for c in CASES if c["id"].startswith("las_")], ids=lambda case: case["id"])
def test_the_other_spread_of_label_aware_smoothing_is_the_paper_form(case):
    hyper, inputs = case["hyper"], case["inputs"]
    shape = hyper["shape"]
    loss = LabelAwareSmoothingLoss(
        inputs["class_counts"], hyper["smooth_head"], hyper["smooth_tail"], shape, off_target="others"
    )
    value = loss(golden_array(inputs["logits"]), torch.tensor(inputs["targets"]))
    stored = case["variants_not_in_code"]["paper form: eps/(C-1) on the others"]
    assert value.item() == pytest.approx(stored, rel=1e-9)


EDGES = {case["id"]: case for case in golden("edges")}


def test_an_absent_class_is_the_smallest_for_label_aware_smoothing_as_in_the_published_code():
    case = EDGES["las_one_zero"]
    inputs, hyper = case["inputs"], case["hyper"]
    loss = LabelAwareSmoothingLoss(inputs["class_counts"], hyper["smooth_head"], hyper["smooth_tail"])
    value = loss(golden_array(inputs["logits"]), torch.tensor(inputs["targets"]))
    assert value.item() == pytest.approx(case["output"]["loss"], rel=1e-6)  # stored from float32


@pytest.mark.parametrize(
    ("edge", "build"),
    [
        ("las_equal", lambda case: LabelAwareSmoothingLoss(case["inputs"]["class_counts"], 0.3, 0.0)),
        ("ldam_one_zero", lambda case: LDAMLoss(case["inputs"]["class_counts"])),
        ("vs_one_zero", lambda case: VSLoss(case["inputs"]["class_counts"])),
        ("bsce_one_zero", lambda case: BalancedSoftmaxLoss(case["inputs"]["class_counts"])),
    ],
)
def test_finite_where_the_published_code_is_not(edge, build):
    case = EDGES[edge]
    assert case["output"]["loss"] in ("nan", "inf")
    targets = torch.tensor(case["inputs"]["targets"])
    value, grad = value_and_grad(lambda z: build(case)(z, targets), golden_array(case["inputs"]["logits"]))
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()
