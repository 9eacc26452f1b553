"""OLTR: the loss on the centroids, what begins where, and the settings of the official code."""

from __future__ import annotations

import math

import pytest
import torch
from recipes import recipe_of
from torch import nn

import longtail
from longtail import data, methods
from longtail.methods.oltr import MetaEmbedding, centroid_loss, centroid_pull
from longtail.networks import LinearHead
from longtail.networks.memory import MetaEmbeddingHead
from longtail.sampling import CyclicClassSampling
from longtail.training.budget import Context, budget_for
from longtail.types import Batch, Progress


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    centroids = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    return features, torch.tensor([0, 0, 0, 1, 2, 2]), centroids


@pytest.mark.parametrize("scale", [0.1, 10.0])  # within the margin and beyond it
def test_the_loss_is_the_formula(scale):
    features, targets, centroids = made()
    rows, places = (scale * features).tolist(), (scale * centroids).tolist()
    own = [math.dist(v, places[y]) ** 2 for v, y in zip(rows, targets.tolist(), strict=True)]
    others = [
        math.dist(v, c) ** 2
        for v, y in zip(rows, targets.tolist(), strict=True)
        for k, c in enumerate(places)
        if k != y
    ]
    expected = 0.5 * sum(own) / 6 + 0.01 * max(0.0, 10 - sum(others) / (6 * 4))
    assert centroid_loss(scale * features, targets, scale * centroids).item() == pytest.approx(expected, abs=1e-12)


def test_a_centroid_follows_its_images_by_a_share_and_not_by_the_weight_of_the_loss():
    features, targets, centroids = made()
    centroids = (100 * centroids).requires_grad_()  # beyond the margin, so that only the attraction is left
    pull = centroid_pull(features, targets, centroids)
    assert pull.item() == 0
    (centroid_loss(features, targets, centroids) * 0.01 + pull).backward()
    for k, images in enumerate([3, 1, 2, 0]):
        own = features[targets == k]
        expected = (centroids[k].detach() - own).sum(0) / 6 / (1 + images)
        torch.testing.assert_close(centroids.grad[k], expected)


def test_the_objective_is_the_sum_of_its_parts(digits):
    stage = recipe_of("oltr", digits, weight=0.5).stages[1]
    head = MetaEmbeddingHead(LinearHead(4, 10))
    head.place_centroids(torch.randn(20, 4), torch.arange(20) % 10)
    network = nn.Module()
    network.features, network.head = nn.Identity(), head
    features, targets = torch.randn(6, 4, requires_grad=True), torch.arange(6)
    assert isinstance(stage.objective, MetaEmbedding)
    loss = stage.objective(network, (Batch(features, targets, targets),), Progress(0, 1))
    classified = torch.nn.functional.cross_entropy(head(features), targets)
    torch.testing.assert_close(loss, classified + 0.5 * centroid_loss(features, targets, head.centroids))


def test_features_have_the_whole_gradient():
    features, targets, centroids = made()
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: centroid_loss(v, targets, centroids), features)


def test_weights_are_shares_of_images():
    features, targets, centroids = made()
    twice = torch.cat([features, features]), torch.cat([targets, targets])
    weights = torch.full((12,), 0.5)
    torch.testing.assert_close(
        centroid_loss(*twice, centroids, weights), centroid_loss(features, targets, centroids), check_dtype=False
    )


def test_the_second_stage_begins_with_the_first_one_s_classifier_and_the_class_means(digits, plain_run, tmp_path):
    stage = recipe_of("oltr", digits).stages[1]
    assert stage.sampling == (CyclicClassSampling(4),)
    assert dict(stage.optimizer.lr_scales) == {"backbone.": 0.1, "head.centroids": 0.1}
    first = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    head = stage.new_head(first.network.head)
    assert torch.equal(head.hallucinator.weight, first.network.head.weight)
    run = longtail.train(digits, "oltr", out=tmp_path / "run", stage1=first.path, **plain_run)
    trained = longtail.load(run.path).network.head
    assert isinstance(trained, MetaEmbeddingHead)
    assert trained.centroids.norm() > 0


def test_published_settings(digits):
    budget = budget_for("imagenet-lt", "published")
    changes = methods.published_budget("oltr", "imagenet-lt")
    budget = type(budget)(**{**vars(budget), **changes})
    plain = longtail.request.Task.of(digits).plain_transforms()
    context = Context((500, 50, 5), "published", budget, plain, plain, dataset="imagenet-lt")
    features, memory = methods.build("oltr", context).stages
    assert (features.epochs, features.schedule.milestones, features.batch_size) == (30, (10, 20), 128)
    assert (memory.epochs, memory.schedule.milestones, memory.optimizer.lr) == (60, (20, 40), 0.1)


def test_a_class_with_one_image_survives_stored_features(tmp_path):
    """Its feature lies on its centroid."""
    rare = data.load("digits", imbalance=120)
    run = longtail.train(
        rare, "oltr", out=tmp_path / "run", freeze_backbone=True, epochs=2, precision="fp32", compile="off"
    )
    assert math.isfinite(run.history[-1]["loss"])


@pytest.mark.parametrize("options", [{"weight": -1}, {"stage2_epochs": 0}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError, match="oltr"):
        recipe_of("oltr", digits, **options)
