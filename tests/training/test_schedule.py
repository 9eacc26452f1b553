from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from longtail import request
from longtail.errors import UsageError
from longtail.methods.deferred import drw
from longtail.training.budget import Budget, budget_for
from longtail.training.recipe import SGD, Schedule


def test_the_published_schedule_is_ldam_drws():
    """LDAM-DRW, cifar_train.py: lr * e / 5 for 1-based epochs 1..5, x 0.01 after 160, x 0.0001 after 180."""
    schedule = budget_for("cifar100", "published").lr_schedule()
    for epoch in range(1, 201):
        expected = epoch / 5 if epoch <= 5 else 1e-4 if epoch > 180 else 1e-2 if epoch > 160 else 1.0
        assert schedule.factor(epoch - 1) == pytest.approx(expected, rel=1e-12), epoch


def test_cosine_starts_at_one_and_still_learns_in_the_last_epoch():
    schedule = Schedule(24, "cosine", warmup=1, milestones=(), decay=())
    assert schedule.factor(0) == 1.0
    assert schedule.factor(1) == 1.0
    assert schedule.factor(23) == pytest.approx(0.5 * (1 + math.cos(math.pi * 22 / 23)))
    assert schedule.factor(23) > 0


@given(st.integers(1, 1000))
def test_scaled_budgets_keep_their_order(epochs):
    budget = budget_for("cifar100", "published").scaled(epochs)
    schedule = budget.lr_schedule()
    factors = [schedule.factor(epoch) for epoch in range(epochs)]
    assert all(factor > 0 for factor in factors)
    if epochs >= 10:
        peak = factors.index(max(factors))
        assert factors[peak:] == sorted(factors[peak:], reverse=True)
        assert factors[-1] == 1e-4


def test_drw_switches_at_the_first_drop(digits):
    from longtail.request import Task, build_recipe, make_config

    for epochs, switch in ((200, 160), (100, 80), (10, 8)):
        config = make_config(
            digits,
            "ce+drw",
            protocol="common",
            seed=0,
            backbone=None,
            precision="fp32",
            eval_every=None,
            options={"epochs": epochs},
        )
        first, late = build_recipe(config, Task.of(digits)).stages
        assert (first.epochs, late.first_epoch, late.epochs) == (switch, switch, epochs - switch)
        assert late.continues
    assert drw.__kwdefaults__["start"] == 160 / 200


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"warmup": -1}],
)
def test_budgets_out_of_range_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Budget(**{"epochs": 10, "milestones": (), "decay": (), **changes})


def test_unknown_protocol_and_missing_one():
    with pytest.raises(UsageError, match="unknown protocol 'quik'"):
        budget_for("cifar100", "quik")
    with pytest.raises(UsageError, match="no published protocol for digits"):
        budget_for("digits", "published")


def test_parameters_of_one_stage_learn_at_rates_of_their_own():
    network, objective = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), nn.Linear(1, 1)
    groups = SGD(lr=0.4, lr_scales=(("0.bias", 0.0), ("0.", 0.5))).parameter_groups(network, objective)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    expected = {network[0].bias: 0.0, network[0].weight: 0.2, network[1].weight: 0.4, objective.weight: 0.4}
    assert {id(p): lr for p, lr in expected.items()}.items() <= rates.items()
    assert len(rates) == 6
    network[0].requires_grad_(False)
    assert [len(g["params"]) for g in SGD().parameter_groups(network, objective)] == [4]
    with pytest.raises(ValueError, match=r"no parameter that trains has a name that starts with 0\."):
        SGD(lr_scales=(("0.", 0.5),)).parameter_groups(network, objective)


@pytest.mark.parametrize(
    ("epochs", "train", "test", "gap"),
    [(200, 10847, 10000, 10), (24, 10847, 10000, 7), (90, 115846, 50000, 4), (100, 10000, 100, 5), (3, 100, 10000, 3)],
)
def test_looks_at_the_test_set_take_a_twentieth_of_the_time_at_most(epochs, train, test, gap):
    data = SimpleNamespace(train=range(train), test=range(test))
    assert request._usual_gap(epochs, data, frozen=False) == gap
    assert request._usual_gap(epochs, data, frozen=True) == epochs
