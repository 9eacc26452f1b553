"""Features and classifier of a run: together they are what the run answers, whatever its network is made of."""

from __future__ import annotations

import numpy as np
import pytest

import longtail
from longtail.report.measure import class_features, classifier_of


@pytest.fixture
def trained(digits, plain_run, tmp_path):
    """Train a method on the digits."""
    return lambda method, **options: longtail.train(digits, method, out=tmp_path / "run", **plain_run, **options)


def scores_of(run, images, expert=1):
    """Score the images of all classes: features (N, d) under the classifier."""
    features, targets = class_features(run, images, np.arange(10), expert)
    classifier = classifier_of(run, expert)
    np.testing.assert_array_equal(targets, images.targets)
    return features @ classifier.weight.T + classifier.bias


@pytest.mark.parametrize(
    ("method", "scale"),
    [("crt", 1), ("mislas", 1), ("tau-norm", 1), ("gcl", 20), ("bbn", 1), ("reslt", 1), ("lfme", 1)],
)
def test_scores_are_the_answers_of_the_run(method, scale, trained, digits):
    run = trained(method)
    expected = run.logits(digits.test.images)
    np.testing.assert_allclose(scale * scores_of(run, digits.test), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classifier", ["cosine", "linear"])
def test_of_experts_they_are_each_expert_s(classifier, trained, digits):
    run = trained("ride", classifier=classifier)
    with np.load(run.path / "test_logits.npz") as content:
        expected = content["expert_logits"]
    scale = 30 if classifier == "cosine" else 1
    for number in (1, 3):
        own = scale * scores_of(run, digits.test, number)
        np.testing.assert_allclose(own, expected[number - 1], rtol=1e-4, atol=1e-3)
    with pytest.raises(longtail.UsageError, match="there is no expert 4"):
        classifier_of(run, 4)


def test_a_classifier_that_is_not_linear_is_refused(trained):
    with pytest.raises(longtail.UsageError, match="not linear in the features"):
        classifier_of(trained("ncm"))
