"""Test sets with other class frequencies: their priors, and what accuracy is expected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.errors import UsageError
from longtail.evaluation import accuracy_given_prior, class_prior, expected_accuracy, fit_posterior


@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=30),
    st.floats(1, 1000),
    st.sampled_from(["forward", "backward"]),
)
def test_prior_is_a_long_tail_in_the_order_of_training(counts, imbalance, distribution):
    prior = class_prior(counts, distribution, imbalance)
    assert prior.sum() == pytest.approx(1)
    assert prior.max() / prior.min() == pytest.approx(imbalance)
    order = np.argsort(-np.array(counts), kind="stable")
    steps = np.diff(prior[order])
    assert (steps <= 1e-12).all() if distribution == "forward" else (steps >= -1e-12).all()


def test_prior_of_one_and_of_equal_classes():
    assert class_prior([7], "forward", 50).tolist() == [1.0]
    np.testing.assert_allclose(class_prior([3, 2, 1], "balanced", 50), 1 / 3)
    np.testing.assert_allclose(class_prior([3, 2, 1], "backward", 1), 1 / 3)


def test_classes_without_test_images_are_left_out():
    assert expected_accuracy([100.0, None, 50.0], np.array([0.25, 0.5, 0.25])) == pytest.approx(75.0)


@pytest.mark.parametrize("value", [0.5, 0.0, float("nan"), float("inf")])
def test_test_imbalance_is_at_least_one(value):
    with pytest.raises(UsageError, match="at least 1"):
        class_prior([2, 1], "forward", value)


def test_classes_without_test_images_are_left_out_of_what_a_run_is_told():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 4, 400)
    logits = 3.0 * np.eye(5)[targets] + generator.normal(size=(400, 5))
    counts, prior = (100, 50, 20, 10, 5), np.array([0.02, 0.04, 0.1, 0.24, 0.6])
    posterior = fit_posterior(logits, targets, counts)
    found = accuracy_given_prior(posterior, logits, targets, prior)
    same = accuracy_given_prior(posterior, logits, targets, np.array([0.02, 0.04, 0.1, 0.24, 0]))
    assert found == same
    assert min(found.values()) > 90
