"""The development set: as training images of the fair baseline, and as what a trained network is fine-tuned on."""

from __future__ import annotations

import math

import pytest
import torch
from recipes import recipe_of
from safetensors.torch import load_file

import longtail
from longtail import data as datasets
from longtail import methods
from longtail.losses import CrossEntropyLoss
from longtail.methods.cb_finetune import DevObjective
from longtail.networks import build_network
from longtail.sampling import InstanceSampling
from longtail.types import Batch, Progress


@pytest.fixture(scope="module")
def held_out():
    return datasets.load("digits", imbalance=10, dev_per_class=2)


def test_the_union_has_all_images_once(held_out):
    union = held_out.with_dev_in_train()
    assert union.dev is None
    assert union.class_counts == [n + 2 for n in held_out.class_counts]
    assert torch.equal(union.train.images[: len(held_out.train)], held_out.train.images)
    assert torch.equal(union.train.images[len(held_out.train) :], held_out.dev.images)
    assert union.train_indices[-20:].tolist() == [-1] * 20
    assert union.with_dev_in_train() is union


def test_the_fair_baseline_sees_the_development_images_and_counts_them(held_out, plain_run, tmp_path):
    run = {**plain_run, "epochs": 1}
    alone = longtail.train(held_out, "bsce", out=tmp_path / "alone", **run)
    both = longtail.train(held_out, "bsce+dev", out=tmp_path / "both", **run)
    assert alone.metrics["class_counts"] == held_out.class_counts
    assert both.metrics["class_counts"] == [n + 2 for n in held_out.class_counts]
    assert both.config.dev_per_class == alone.config.dev_per_class == 2
    objective = longtail.request.build_recipe(both.config, both.task).stages[0].objective
    assert objective.criterion.class_counts.tolist() == both.metrics["class_counts"]
    assert longtail.load(both.path).predict(held_out.test.images[:2]).shape == (2,)


def test_fine_tuning_looks_at_the_development_batch_alone():
    torch.manual_seed(0)
    network = build_network("small", 4, 1).eval()
    train, dev = (Batch(torch.randn(n, 1, 8, 8), torch.randint(4, (n,)), torch.arange(n)) for n in (6, 3))
    objective = DevObjective(CrossEntropyLoss([4, 3, 2, 1]))
    expected = torch.nn.functional.cross_entropy(network(dev.images), dev.targets)
    torch.testing.assert_close(objective(network, (train, dev), Progress(0, 1)), expected)


def test_fine_tuning_moves_all_weights_at_a_small_constant_rate_and_leaves_batch_norm_s_statistics(
    held_out, plain_run, tmp_path
):
    first, second = recipe_of("cb-finetune", held_out).stages
    assert (first.dev, first.batch_norm, first.trainable) == ((), "train", "all")
    assert (second.dev, second.batch_norm, second.trainable) == ((InstanceSampling(),), "eval", "all")
    assert (second.epochs, second.continues) == (10, False)
    assert [second.optimizer.lr * second.schedule.factor(epoch) for epoch in range(10)] == [1e-3] * 10
    run = {**plain_run, "epochs": 1}
    plain = longtail.train(held_out, "ce", out=tmp_path / "ce", **run)
    tuned = longtail.train(held_out, "cb-finetune", out=tmp_path / "tuned", stage2_epochs=1, **run)
    before, after = (load_file(one.path / "model.safetensors") for one in (plain, tuned))
    unmoved = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert unmoved == {name for name in before if "running_" in name or "num_batches" in name}
    assert unmoved


@pytest.mark.parametrize("name", [*methods.names(), *(f"ce+{modifier}" for modifier in methods.modifiers())])
def test_the_table_says_what_is_refused_without_a_development_set(name, digits):
    try:
        recipe_of(name, digits)
        refused = False
    except longtail.UsageError as error:
        refused = "development set" in str(error)
    assert refused == methods.needs_dev(name)


@pytest.mark.parametrize("options", [{"stage2_epochs": 0}, {"stage2_lr": 0.0}, {"stage2_lr": math.nan}])
def test_wrong_settings_of_fine_tuning_are_refused(options, held_out, plain_run, tmp_path):
    with pytest.raises(longtail.UsageError, match="must be"):
        longtail.train(held_out, "cb-finetune", out=tmp_path / "run", **plain_run, **options)
