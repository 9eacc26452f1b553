"""Expert assignment: the routers' targets and loss by hand, what the stage trains, and what it is refused on."""

from __future__ import annotations

import math

import pytest
import torch
from recipes import lent, recipe_of
from safetensors.torch import load_file

import longtail
from longtail.methods.inference import AverageAsked
from longtail.methods.ride_assignment import AssignmentObjective, needs_more
from longtail.networks import RoutedHead
from longtail.sampling import CyclicClassSampling


def draws(experts=4, batch=50, classes=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(experts, batch, classes, dtype=torch.float64, generator=generator)
    targets = torch.randint(classes, (batch,), generator=generator)
    return logits, targets, torch.randn(experts - 1, batch, dtype=torch.float64, generator=generator)


def targets_by_hand(logits, targets):
    rows = []
    for i in range(1, len(logits)):
        row = []
        for b, target in enumerate(targets.tolist()):
            right = [logits[:n, b].mean(0).argmax().item() == target for n in range(1, len(logits) + 1)]
            row.append(not right[i - 1] and any(right[i:]))
        rows.append(row)
    return rows


def test_more_is_needed_where_it_is_wrong_so_far_and_right_later():
    logits, targets, _ = draws()
    wanted = targets_by_hand(logits, targets)
    assert needs_more(logits, targets).tolist() == wanted
    assert any(wanted[0])
    assert not all(wanted[0])


@pytest.mark.parametrize("pos_weight", [1.0, 100.0])
def test_the_loss_is_the_mean_over_routers_of_weighted_cross_entropies(pos_weight):
    logits, targets, scores = draws()
    total = 0.0
    for row, score_row in zip(targets_by_hand(logits, targets), scores.tolist(), strict=True):
        losses = [
            -pos_weight * math.log(1 / (1 + math.exp(-score))) if more else -math.log(1 - 1 / (1 + math.exp(-score)))
            for more, score in zip(row, score_row, strict=True)
        ]
        total += sum(losses) / len(losses)
    value = AssignmentObjective(pos_weight).loss(scores, logits, targets)
    assert value.item() == pytest.approx(total / 3, rel=1e-12)


def test_a_batch_in_which_nothing_needs_more_has_a_finite_loss():
    logits = torch.zeros(3, 4, 5)
    logits[..., 2] = 9.0
    for targets in (torch.full((4,), 2), torch.zeros(4, dtype=torch.int64)):  # all right, all wrong for ever
        assert not needs_more(logits, targets).any()
        assert torch.isfinite(AssignmentObjective().loss(torch.zeros(2, 4), logits, targets))


def test_published_settings_are_those_of_the_released_configuration(cifar_like):
    recipe = recipe_of("ride+ea", cifar_like, "published")
    routers = recipe.stages[-1]
    assert (routers.epochs, routers.batch_size, routers.sampling) == (5, 512, (CyclicClassSampling(1),))
    sgd = routers.optimizer
    assert (sgd.lr, sgd.momentum, sgd.weight_decay, sgd.nesterov) == (0.01, 0.9, 5e-4, True)
    assert [round(routers.schedule.factor(e), 3) for e in (0, 4)] == [
        1.0,
        round(0.5 + 0.5 * math.cos(0.8 * math.pi), 3),
    ]
    assert routers.augment == recipe.stages[0].augment != recipe_of("ce", cifar_like, "published").stages[0].augment
    assert (routers.batch_norm, routers.cached_features, routers.trainable) == ("eval", False, "head")
    assert isinstance(recipe.inference, AverageAsked)
    assert lent("ride+ea", "ride", cifar_like, "published") == 2
    assert recipe_of("ride+ea", cifar_like, "common").stages[-1].cached_features


def test_experts_stay_as_they_were_and_the_weight_says_how_many_are_asked(digits, plain_run, tmp_path):
    plain_run["epochs"] = 5
    base = longtail.train(digits, "ride", out=tmp_path / "ride", **plain_run)
    theirs, used = load_file(base.path / "model.safetensors"), {}
    assert base.metrics["experts_used"] == 3
    for weight in (1e-6, 100.0, 1e6):
        run = longtail.train(
            digits, "ride+ea", out=tmp_path / f"ea{weight}", stage1=base.path, pos_weight=weight, **plain_run
        )
        ours = load_file(run.path / "model.safetensors")
        backbone = [name for name in theirs if name.startswith("backbone.")]
        assert all(torch.equal(ours[name], theirs[name]) for name in backbone)
        heads = [name for name in theirs if name.startswith("head.")]
        assert all(torch.equal(ours[name.replace("head.", "head.experts.", 1)], theirs[name]) for name in heads)
        assert isinstance(run.network.head, RoutedHead)
        used[weight] = run.metrics["experts_used"]
        assert 1 <= used[weight] <= 3
        stages = [line["stage"] for line in run.history]
        assert stages == ["train"] * 4 + ["deferred"] + ["routers"] * 5
    assert used[1e-6] < 1.2
    assert used[1e6] > 2.5


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("ce+ea", {}, "mean logits are the answer"),
        ("crt+ea", {}, "mean logits are the answer"),
        ("ride+ea", {"experts": 1}, "single expert"),
        ("independent-experts+ea", {"base": "ce", "experts": 1}, "single expert"),
        ("independent-experts+ea", {"base": "ce", "average": "probabilities"}, "mean logits are the answer"),
        ("independent-experts+ea", {"ablation": "w/o TA"}, "mean logits are the answer"),
        ("ride+ea", {"pos_weight": 0.0}, "pos_weight is 0.0"),
        ("ride+ea", {"top_k": 0}, "top_k 0"),
        ("ride+ea", {"router_epochs": 0}, "router_epochs 0"),
    ],
)
def test_what_has_nothing_to_route_is_refused(name, options, reason, digits):
    with pytest.raises(longtail.UsageError, match=reason):
        recipe_of(name, digits, **options)
