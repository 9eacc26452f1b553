"""De-confound-TDE: settings of the official code, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from recipes import recipe_of

import longtail
from longtail import methods
from longtail.networks.causal import TwoTailBackbone
from longtail.request import Task
from longtail.training.budget import Context, budget_for


def network_on(dataset, protocol, digits, **options):
    plain = Task.of(digits).plain_transforms()
    context = Context((500, 50, 5), protocol, budget_for(dataset, protocol), plain, plain, dataset=dataset)
    backbone = "resnet32" if dataset.startswith("cifar") else "resnet10"
    return methods.build("tde", context, options).network(backbone, 3, 3)


@pytest.mark.parametrize(
    ("dataset", "protocol", "alpha", "tails"),
    [
        ("cifar10", "published", 1.0, True),
        ("cifar100", "published", 1.5, True),
        ("cifar100", "common", 1.5, False),
        ("imagenet-lt", "published", 3.0, False),
        ("my-birds", "quick", 3.0, False),
    ],
)
def test_strength_and_network_are_the_official_code_s(dataset, protocol, alpha, tails, digits):
    network = network_on(dataset, protocol, digits)
    head = network.head
    assert (head.heads, head.tau, head.gamma, head.alpha, head.mu) == (2, 16.0, 1 / 32, alpha, 0.9)
    assert isinstance(network.backbone, TwoTailBackbone) == tails
    assert network_on(dataset, protocol, digits, alpha=0.5, two_tails=False).head.alpha == 0.5


def test_the_published_budget_is_that_of_its_code():
    budget = replace(budget_for("cifar100", "published"), **methods.published_budget("tde", "cifar100"))
    assert (budget.batch_size, budget.lr, budget.weight_decay, budget.nesterov) == (256, 0.2, 5e-4, False)
    assert (budget.milestones, budget.decay) == ((120, 160), (0.01, 0.0001))


def test_a_run_keeps_the_common_direction(digits, tmp_path):
    run = longtail.train(digits, method="tde", epochs=2, out=tmp_path / "run", precision="fp32", compile="off")
    head = longtail.load(run.path).network.head
    assert head.mean.norm() > 0
    features = torch.randn(3, head.in_features).abs()
    adjusted = head.eval()(features)
    head.alpha = 0.0
    assert not torch.allclose(adjusted, head(features))


def test_it_works_on_features_that_stay_as_they_are(digits, tmp_path):
    run = longtail.train(digits, method="tde", epochs=2, out=tmp_path / "run", freeze_backbone=True)
    assert run.network.head.mean.norm() > 0


@pytest.mark.parametrize("options", [{"alpha": -1}, {"tau": 0}, {"gamma": -1}, {"heads": 0}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError, match="tde"):
        recipe_of("tde", digits, **options)
