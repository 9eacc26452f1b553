"""MiSLAS: the authors' settings by data set, two learning rates, shifted batch norm."""

from __future__ import annotations

import pytest
import torch
from recipes import recipe_of, recipe_on
from safetensors.torch import load_file

import longtail
from longtail.augment import Mixup
from longtail.methods.mislas import settings_for
from longtail.networks import LearnableScalingHead
from longtail.sampling import CyclicClassSampling


def counts(classes: int, imbalance: float) -> tuple[int, ...]:
    return tuple(longtail.data.long_tail_counts(5000, classes, imbalance, "exp"))


@pytest.mark.parametrize(
    ("classes", "imbalance", "expected"),
    [
        (10, 10, (0.1, 0, 0.2, False)),
        (10, 50, (0.2, 0, 0.2, False)),
        (10, 100, (0.3, 0, 0.5, False)),
        (100, 10, (0.2, 0, 0.1, True)),
        (100, 50, (0.3, 0, 0.1, True)),
        (100, 100, (0.4, 0.1, 0.2, True)),
        (100, 200, (0.4, 0.1, 0.2, True)),  # beyond the table: the nearest
        (10, 1, (0.1, 0, 0.2, False)),
    ],
)
def test_settings_are_the_authors(classes, imbalance, expected):
    assert tuple(settings_for("cifar", counts(classes, imbalance))) == pytest.approx((*expected, 1.0))


def test_between_the_table_s_factors_settings_are_interpolated_on_their_logarithm():
    halfway = settings_for("cifar100", (500, *[100] * 98, 500 / 50**0.5 / 100**0.5))
    assert tuple(halfway) == pytest.approx((0.35, 0.05, 0.15, True, 1.0))


@pytest.mark.parametrize(("dataset", "epochs", "decay"), [("imagenet-lt", 180, 5e-4), ("inat18", 200, 1e-4)])
def test_the_large_sets_have_settings_of_their_own(dataset, epochs, decay, digits):
    features, classifier = recipe_on(dataset, "published", "mislas", digits).stages
    assert features.mixing == Mixup(alpha=0.2)
    assert (features.epochs, features.batch_size, features.optimizer.lr) == (epochs, 256, 0.1)
    assert features.optimizer.weight_decay == classifier.optimizer.weight_decay == decay
    loss = classifier.objective.criterion
    assert (loss.head, loss.tail) == (0.3, 0.0)
    assert classifier.optimizer.lr_scales == (("head.linear.", 0.05),)
    assert (classifier.batch_norm, classifier.batch_size, classifier.epochs) == ("train", 256, 10)


def test_places_has_the_authors_settings_too():
    assert tuple(settings_for("places-lt", counts(365, 996))) == (0.4, 0.1, 0.05, True, 0.2)


def test_published_settings_are_the_authors(cifar_like):
    features, classifier = recipe_of("mislas", cifar_like, "published").stages
    assert features.mixing == Mixup(alpha=1.0)
    assert (features.epochs, features.optimizer.lr, features.optimizer.weight_decay) == (200, 0.1, 2e-4)
    assert [round(features.schedule.factor(e), 6) for e in (4, 159, 160, 180)] == [1.0, 1.0, 0.1, 0.01]
    loss = classifier.objective.criterion
    assert (loss.head, loss.tail, loss.shape, loss.off_target) == (0.4, 0.1, "concave", "all")
    assert (classifier.epochs, classifier.optimizer.lr, classifier.optimizer.weight_decay) == (10, 0.1, 2e-4)
    assert classifier.optimizer.lr_scales == (("head.linear.", 0.2),)
    assert classifier.sampling == (CyclicClassSampling(4),)
    assert (classifier.batch_norm, classifier.cached_features, classifier.mixing) == ("train", False, None)


def test_options_go_before_the_table(digits):
    classifier = recipe_of("mislas", digits, smooth_head=0.5, lr_factor=0.7, shift_bn=True).stages[1]
    assert classifier.objective.criterion.head == 0.5
    assert classifier.optimizer.lr_scales[0][1] == 0.7
    assert classifier.batch_norm == "train"
    with pytest.raises(longtail.UsageError, match=r"head must be a finite number in \[0, 1\], got 2"):
        recipe_of("mislas", digits, smooth_head=2)


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model.safetensors")


@pytest.fixture(scope="module")
def stage1(digits, tmp_path_factory):
    options = {"protocol": "quick", "epochs": 1, "precision": "fp32", "threads": 1, "compile": "off", "device": "cpu"}
    run = longtail.train(digits, "ce+mixup", out=tmp_path_factory.mktemp("stage1") / "run", **options)
    return run.path, {**options, "stage1": run.path, "stage2_epochs": 2}


def test_a_learning_rate_factor_of_zero_leaves_the_classifier_and_trains_the_scales(stage1, digits, tmp_path):
    path, options = stage1
    frozen = weights(longtail.train(digits, "mislas", out=tmp_path / "a", lr_factor=0, **options))
    slow = weights(longtail.train(digits, "mislas", out=tmp_path / "b", lr_factor=0.1, **options))
    base = load_file(path / "model.safetensors")
    assert torch.equal(frozen["head.linear.weight"], base["head.weight"])
    assert not torch.equal(slow["head.linear.weight"], base["head.weight"])
    assert (frozen["head.scale"] != 1).all()


def test_only_shifted_batch_norm_moves_and_only_its_statistics(stage1, digits, tmp_path):
    path, options = stage1
    still = weights(longtail.train(digits, "mislas", out=tmp_path / "a", shift_bn=False, **options))
    shifted = weights(longtail.train(digits, "mislas", out=tmp_path / "b", shift_bn=True, **options))
    base = load_file(path / "model.safetensors")
    for key, value in base.items():
        if key.startswith("backbone."):
            moves = "running" in key or "num_batches" in key
            assert torch.equal(still[key], value)
            assert torch.equal(shifted[key], value) != moves, key


def test_the_head_starts_as_the_trained_one(digits):
    network = longtail.networks.build_network("small", 10, 1)
    before, inputs = network.head, torch.randn(4, 64)
    head = recipe_of("mislas", digits).stages[1].new_head(before)
    assert isinstance(head, LearnableScalingHead)
    assert torch.equal(head(inputs), before(inputs))
    assert all(parameter.requires_grad for parameter in head.parameters())
