"""The classifier stages that cRT, LWS and SSD share."""

from __future__ import annotations

import pytest
from recipes import recipe_on

from longtail.sampling import ClassBalancedSampling, CyclicClassSampling, InstanceSampling
from longtail.training.budget import budget_for


@pytest.mark.parametrize(
    ("name", "dataset", "epochs", "decay", "in_a_row"),
    [
        ("crt", "imagenet-lt", 10, 5e-4, 4),
        ("crt", "inat18", 30, 1e-4, 4),
        ("lws", "imagenet-lt", 5, 5e-4, 4),
        ("lws", "inat18", 5, 1e-4, 4),
        ("ssd", "imagenet-lt", 5, 5e-4, 2),
    ],
)
def test_on_the_large_sets_the_second_stage_is_the_authors_own(name, dataset, epochs, decay, in_a_row, digits):
    stage = recipe_on(dataset, "published", name, digits).stages[1]
    assert stage.sampling == (CyclicClassSampling(in_a_row),)
    assert (stage.epochs, stage.batch_size, stage.batch_norm) == (epochs, 512, "train")
    assert not stage.cached_features
    optimizer, schedule = stage.optimizer, stage.schedule
    assert (optimizer.lr, optimizer.weight_decay, optimizer.nesterov) == (0.2, decay, False)
    assert (schedule.kind, schedule.warmup, schedule.epochs) == ("cosine", 0, epochs)
    changed = recipe_on(dataset, "published", name, digits, stage2_lr=0.05, stage2_epochs=3).stages[1]
    assert (changed.epochs, changed.schedule.epochs, changed.optimizer.lr) == (3, 3, 0.05)


@pytest.mark.parametrize("name", ["crt", "lws", "ssd"])
@pytest.mark.parametrize(("dataset", "protocol"), [("cifar100", "published"), ("imagenet-lt", "common")])
def test_elsewhere_it_is_that_of_the_bag_of_tricks(name, dataset, protocol, digits):
    stage = recipe_on(dataset, protocol, name, digits).stages[1]
    optimizer, schedule = stage.optimizer, stage.schedule
    assert (stage.epochs, optimizer.lr, optimizer.weight_decay, optimizer.nesterov) == (30, 0.1, 5e-4, True)
    assert stage.sampling == (ClassBalancedSampling(),)
    assert stage.cached_features == (protocol == "common")
    if protocol == "published":
        assert (schedule.kind, schedule.warmup, schedule.milestones) == ("step", 5, (10, 20))


def test_the_warm_stage_is_h2t_s_everywhere(digits):
    for dataset in ("cifar100", "imagenet-lt"):
        stage = recipe_on(dataset, "published", "crt", digits, warm=True).stages[1]
        assert (stage.epochs, stage.optimizer.lr, stage.optimizer.nesterov) == (10, 0.02, False)
        assert stage.sampling == (ClassBalancedSampling(),)
        assert stage.batch_size == budget_for(dataset, "published").batch_size


@pytest.mark.parametrize("manner", ["ce", "rw"])
def test_the_classifier_of_bbn_s_other_manners_sees_images_as_they_come(manner, digits):
    for dataset in ("cifar100", "imagenet-lt"):
        stage = recipe_on(dataset, "published", "crt", digits, classifier=manner).stages[1]
        assert stage.sampling == (InstanceSampling(),)
