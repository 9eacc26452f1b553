"""GCL: the stages as the official code runs them, and the cached variant."""

from __future__ import annotations

import pytest
from recipes import recipe_of

import longtail
from longtail.networks import CosineHead
from longtail.sampling import ClassBalancedSampling


def test_published_settings_are_the_authors(cifar_like):
    recipe = recipe_of("gcl", cifar_like, "published")
    features, classifier = recipe.stages
    assert (features.epochs, features.batch_size, features.optimizer.lr) == (200, 64, 0.1)
    assert [round(features.schedule.factor(e), 6) for e in (4, 159, 160, 180)] == [1.0, 1.0, 0.1, 0.01]
    first, second = features.objective.criterion, classifier.objective.criterion
    assert (first.s, first.m, first.noise_mul, first.gamma) == (30, 0, 0.5, 0)
    assert (second.s, second.m, second.noise_mul, second.gamma) == (20, 0.1, 0.5, 1)
    assert (classifier.epochs, classifier.batch_size, classifier.optimizer.lr) == (30, 64, 0.002)
    assert classifier.sampling == (ClassBalancedSampling(),)
    assert classifier.mixing == features.mixing is not None
    assert (classifier.batch_norm, classifier.cached_features, classifier.new_head) == ("eval", False, None)
    assert isinstance(recipe.network("small", 10, 1).head, CosineHead)
    assert recipe.inference.scale == 20


def test_changes_to_the_published_budget_stand(cifar_like):
    features = recipe_of("gcl", cifar_like, "published", batch_size=32, decay=(0.5, 0.2)).stages[0]
    assert features.batch_size == 32
    assert features.schedule.factor(170) == 0.5
    assert recipe_of("gcl", cifar_like, "common").stages[0].batch_size == 128


@pytest.mark.parametrize("name", ["gcl", "gcl+h2t", "mislas+h2t", "crt+h2t"])
def test_uncached_stages_train(name, digits, plain_run, tmp_path):
    options = {} if name.startswith("mislas") else {"cached": False}
    run = longtail.train(digits, name, out=tmp_path / "run", stage2_epochs=1, **options, **{**plain_run, "epochs": 1})
    assert 0 < run.metrics["top1"] <= 100
