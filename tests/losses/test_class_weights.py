"""Class weights against stored numbers, limits and degenerate counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_table import COUNTS, golden

from longtail.losses import effective_number_weights, inverse_frequency_weights

CASES = golden("class_weights")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_weights_are_those_of_the_published_code(case):
    counts, hyper, output = case["inputs"]["class_counts"], case["hyper"], case["output"]
    if case["id"].startswith("ib_inverse"):
        weights, stored, tolerance = inverse_frequency_weights(counts), output["weights"], 1e-11
    elif "one_minus_beta" in hyper:
        weights, stored, tolerance = effective_number_weights(counts, 1 - 1e-6), output["weights_expm1"], 1e-11
    else:
        weights, stored, tolerance = effective_number_weights(counts, hyper["beta"]), output["weights"], 1e-11
    expected = torch.tensor(stored, dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("beta", [0, 0.9, 0.9999, 1 - 1e-9, 1])
def test_effective_number_weights_are_finite_ordered_and_sum_to_the_number_of_classes(beta):
    weights = effective_number_weights(COUNTS, beta)
    assert weights.dtype == torch.float64
    assert torch.isfinite(weights).all()
    assert weights.sum().item() == pytest.approx(len(COUNTS), rel=1e-12)
    assert (weights.diff() >= 0).all()


def test_limits_of_beta_are_no_weights_and_inverse_frequency():
    assert effective_number_weights(COUNTS, 0).tolist() == [1.0] * len(COUNTS)
    inverse = torch.tensor([1 / n for n in COUNTS], dtype=torch.float64)
    expected = inverse * len(COUNTS) / inverse.sum()
    torch.testing.assert_close(effective_number_weights(COUNTS, 1), expected)
    torch.testing.assert_close(effective_number_weights(COUNTS, 1 - 1e-12), expected, rtol=1e-9, atol=0)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20), st.floats(0, 0.999))
def test_effective_number_weights_follow_the_sum_of_powers(counts, beta):
    # The effective number of samples is the geometric sum 1 + beta + ... + beta^(n-1).
    raw = np.array([1 / sum(beta**k for k in range(n)) for n in counts])
    expected = raw * len(counts) / raw.sum()
    np.testing.assert_allclose(effective_number_weights(counts, beta).numpy(), expected, rtol=1e-9)


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=20), st.floats(0, 2))
def test_inverse_frequency_weights_follow_the_formula(counts, power):
    raw = np.array([n ** -float(power) for n in counts])
    np.testing.assert_allclose(
        inverse_frequency_weights(counts, power).numpy(), raw * len(counts) / raw.sum(), rtol=1e-9
    )


@pytest.mark.parametrize("weigh", [inverse_frequency_weights, effective_number_weights])
def test_an_absent_class_has_weight_0_and_does_not_change_the_others(weigh):
    with_absent = weigh([500, 0, 30, 8])
    assert with_absent[1] == 0
    torch.testing.assert_close(with_absent[[0, 2, 3]], weigh([500, 30, 8]))


@pytest.mark.parametrize("weigh", [inverse_frequency_weights, effective_number_weights])
def test_equal_counts_have_weight_1(weigh):
    torch.testing.assert_close(weigh([7, 7, 7]), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("counts", "rule"),
    [
        ([[1, 2]], "shape"),
        ([], "shape"),
        ([3, -1], "class 1"),
        ([3.5, 1], "class 0"),
        ([float("nan"), 1], "class 0"),
        ([float("inf"), 1], "class 0"),
        ([0, 0], "zeros"),
        ([True, False], "dtype"),
    ],
)
def test_wrong_counts_are_refused_with_their_rule(counts, rule):
    with pytest.raises(ValueError, match=rule):
        effective_number_weights(counts)


def test_counts_come_as_list_array_or_tensor():
    read_only = np.array(COUNTS)
    read_only.flags.writeable = False
    expected = effective_number_weights(COUNTS)
    for counts in (tuple(COUNTS), read_only, torch.tensor(COUNTS), torch.tensor(COUNTS, dtype=torch.float32)):
        assert torch.equal(effective_number_weights(counts), expected)


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_wrong_beta_is_refused(beta):
    with pytest.raises(ValueError, match=r"beta must be a finite number in \[0, 1\]"):
        effective_number_weights(COUNTS, beta)


def test_negative_power_is_refused():
    with pytest.raises(ValueError, match="power"):
        inverse_frequency_weights(COUNTS, -1)
