"""Temperature and reference prior: what is fitted, against known answers; what a prior does, against Bayes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.evaluation import Posterior, calibration_gain, expected_calibration_error, fit_posterior, posterior

COUNTS = (200, 60, 20, 6, 2)
LOG_TRAIN = np.log(np.array(COUNTS) / sum(COUNTS))


def world(prior, size, *, temperature, tau, seed=0):
    """Images whose true posterior under equal classes is softmax(s), and a model that says T (s + tau log pi)."""
    generator = np.random.default_rng(seed)
    targets = generator.choice(len(COUNTS), size=size, p=np.array(prior) / np.sum(prior))
    centres = 2.0 * np.eye(len(COUNTS))
    x = centres[targets] + generator.normal(size=(size, len(COUNTS)))
    scores = x @ centres.T - (centres**2).sum(1) / 2
    return temperature * (scores + tau * LOG_TRAIN), targets


@pytest.mark.parametrize("prior", [[1, 1, 1, 1, 1], COUNTS, COUNTS[::-1]], ids=["balanced", "as training", "reversed"])
@pytest.mark.parametrize(("temperature", "tau"), [(1.0, 0.0), (3.0, 1.0), (0.4, 0.5)])
def test_what_the_model_does_is_found_whatever_the_held_out_classes_are(prior, temperature, tau):
    logits, targets = world(prior, 4000, temperature=temperature, tau=tau)
    found = fit_posterior(logits, targets, COUNTS)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.tau == pytest.approx(tau, abs=0.15)
    assert found.held_out == 4000


def objective(log_t, tau, logits, targets):
    """The negative log-likelihood with its pull, image by image."""
    q = np.bincount(targets, minlength=len(COUNTS)) / len(targets)
    total = log_t**2 / 2 + 2 * (tau - 0.5) ** 2
    for z, y in zip(logits, targets, strict=True):
        terms = [q[c] * math.exp(z[c] / math.exp(log_t) - tau * LOG_TRAIN[c]) for c in range(len(COUNTS))]
        total -= math.log(terms[y] / sum(terms))
    return total


def test_the_fit_is_the_minimum_of_the_formula():
    logits, targets = world(COUNTS, 60, temperature=2.0, tau=0.7, seed=1)
    found = fit_posterior(logits, targets, COUNTS)
    log_t = math.log(found.temperature)
    least = objective(log_t, found.tau, logits, targets)
    for step in (1e-3, 0.1, 1.0):
        for dt, dtau in ((step, 0), (-step, 0), (0, step), (0, -step), (step, step), (-step, step)):
            assert objective(log_t + dt, found.tau + dtau, logits, targets) > least


def test_without_a_prior_answers_stay_and_with_one_they_follow_bayes():
    logits, _ = world(COUNTS, 50, temperature=2.0, tau=1.0)
    found = Posterior(COUNTS, temperature=2.0, tau=1.0)
    plain = found.probabilities(logits)
    assert (plain.argmax(1) == logits.argmax(1)).all()
    likelihood = np.exp(logits / 2.0) / np.array(COUNTS)  # up to a factor for each image
    prior = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    expected = likelihood * prior / (likelihood * prior).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities(logits, prior), expected, rtol=1e-9)
    assert (found.probabilities(logits, prior)[:, 4] == 0).all()
    np.testing.assert_allclose(found.probabilities(logits, found.reference), plain, rtol=1e-9)
    np.testing.assert_allclose(found.reference, np.array(COUNTS) / sum(COUNTS), rtol=1e-9)


@settings(max_examples=25)
@given(st.lists(st.floats(0.01, 10), min_size=5, max_size=5), st.floats(0.1, 100))
def test_only_the_ratios_of_a_prior_matter(prior, factor):
    logits, _ = world(COUNTS, 5, temperature=1.0, tau=0.3)
    found = Posterior(COUNTS, 1.5, 0.3)
    ours = found.probabilities(logits, prior)
    np.testing.assert_allclose(ours, found.probabilities(logits, np.array(prior) * factor), rtol=1e-9)
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("prior", [[1, 1, 1, 1, 1], COUNTS, [0.5, 0, 0.2, 0.1, 0.2]])
def test_matched_answers_are_as_frequent_as_the_prior_says(prior):
    logits, _ = world(COUNTS, 400, temperature=1.0, tau=1.0)
    found = Posterior(COUNTS, 1.3, 0.4)
    answers = found.matched(logits, prior)
    np.testing.assert_allclose(answers.mean(0), np.array(prior) / sum(prior), atol=2e-6)
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-12)
    # Entropic transport: the plan is exp(z / T) up to a factor for each image and one for each class.
    kernel = np.exp(logits / 1.3)
    inside = np.array(prior) > 0
    factors = (answers / kernel)[:, inside]
    np.testing.assert_allclose(factors / factors[:, :1], np.tile(factors[0] / factors[0, 0], (400, 1)), rtol=1e-8)


def test_matching_mends_a_reference_that_is_wrong():
    """A model that never heard of the last class's rarity, told that classes are even among these images."""
    logits, targets = world([1, 1, 1, 1, 1], 4000, temperature=1.0, tau=0.0)
    skewed = logits + np.array([0, 0, 0, 0, -4.0])
    found = Posterior(COUNTS, 1.0, 0.0)
    right = [
        (p.argmax(1) == targets).mean() for p in (found.probabilities(skewed, [1] * 5), found.matched(skewed, [1] * 5))
    ]
    assert right[1] > right[0] + 0.05
    assert right[1] == pytest.approx((logits.argmax(1) == targets).mean(), abs=0.01)


def test_images_count_as_often_as_they_are_said_to():
    logits, _ = world(COUNTS, 60, temperature=1.0, tau=1.0)
    found = Posterior(COUNTS)
    times = np.arange(60) % 3
    repeated = found.matched(np.repeat(logits, times, axis=0), [1] * 5)
    np.testing.assert_allclose(np.repeat(found.matched(logits, [1] * 5, times), times, axis=0), repeated, atol=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.9, 0.99, 0.999])
def test_a_class_that_the_model_never_gives_is_left_out_of_the_match(share):
    logits, _ = world(COUNTS, 50, temperature=1.0, tau=1.0)
    logits[:, 2] = -np.inf
    others = (1 - share) / 4
    answers = Posterior(COUNTS).matched(logits, [others, others, share, others, others])
    np.testing.assert_allclose(answers.mean(0), [0.25, 0.25, 0, 0.25, 0.25], atol=2e-6)


def test_matching_of_sure_answers_and_of_no_images():
    far = np.random.default_rng(0).permutation(np.eye(5).repeat(20, 0)) * 800
    assert np.isfinite(Posterior(COUNTS).matched(far, [0.6, 0.1, 0.1, 0.1, 0.1])).all()
    assert Posterior(COUNTS).matched(np.zeros((0, 5)), [1] * 5).shape == (0, 5)
    sure = Posterior(COUNTS).matched(np.array([[0.0, 0, 0, 0, 5000]]), [1, 1, 1, 1, 0])
    np.testing.assert_allclose(sure, [[0.25, 0.25, 0.25, 0.25, 0]])


@pytest.mark.parametrize("prior", [[1, 2], [0] * 5, [1, 1, 1, 1, -1], [1, 1, 1, 1, math.nan], [[1] * 5]])
def test_priors_that_are_none(prior):
    for answer in (Posterior(COUNTS).probabilities, Posterior(COUNTS).matched):
        with pytest.raises(ValueError, match="prior: needs 5 numbers"):
            answer(np.zeros((1, 5)), prior)


def test_a_handful_of_images_decides_little():
    """All right with a wide margin: without the pull the temperature would go to zero."""
    targets = np.arange(5)
    found = fit_posterior(20.0 * np.eye(5), targets, COUNTS)
    assert 0.2 < found.temperature < 5
    assert abs(found.tau - 0.5) < 1


def test_classes_that_are_never_predicted_empty_classes_and_equal_counts():
    logits, targets = world([1, 1, 1, 1, 0], 200, temperature=1.0, tau=0.0)
    logits[:, 4] = -np.inf
    counts = (*COUNTS[:4], 0)
    found = fit_posterior(logits, targets, counts)
    assert 0.7 < found.temperature < 1.4
    probabilities = found.probabilities(logits, np.ones(5))
    assert (probabilities[:, 4] == 0).all()
    assert np.isfinite(probabilities).all()
    even = fit_posterior(logits[:, :4], targets, [7] * 4)
    np.testing.assert_allclose(even.reference, 0.25)


def test_large_sets_are_thinned_out(monkeypatch):
    logits, targets = world(COUNTS, 900, temperature=2.0, tau=0.0)
    whole = fit_posterior(logits, targets, COUNTS)
    monkeypatch.setattr(posterior, "_MOST_NUMBERS", 500 * 5)
    found = fit_posterior(logits, targets, COUNTS)
    assert found.held_out == 500
    assert found.temperature == pytest.approx(whole.temperature, rel=0.2)


def test_the_gain_is_measured_on_images_left_out(monkeypatch):
    logits, targets = world([1] * 5, 1000, temperature=3.0, tau=1.0)
    before, after = calibration_gain(logits, targets, COUNTS)
    assert before == expected_calibration_error(logits, targets)
    assert after < 0.05 < before
    seen = []
    real = posterior.fit_posterior

    def listening(scores, classes, counts):
        seen.append({tuple(row) for row in scores})
        return real(scores, classes, counts)

    monkeypatch.setattr(posterior, "fit_posterior", listening)
    calibration_gain(logits, targets, COUNTS)
    everything = {tuple(row) for row in logits}
    left_out = [everything - part for part in seen]
    assert sorted(map(len, left_out)) == [200] * 5
    assert set.union(*left_out) == everything
    assert calibration_gain(logits[:19], targets[:19], COUNTS) is None


def test_wrong_arrays():
    with pytest.raises(ValueError, match="3 classes in the logits, 5 class counts"):
        fit_posterior(np.zeros((4, 3)), [0, 1, 2, 0], COUNTS)
    with pytest.raises(ValueError, match="has training diverged"):
        fit_posterior(np.full((4, 5), np.nan), [0, 1, 2, 0], COUNTS)
