"""CAM-based sampling: how many images are made, of what, and where it goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from recipes import recipe_of

import longtail
from longtail.augment import Mixup
from longtail.losses import CrossEntropyLoss
from longtail.methods.cam import MovedForegrounds, made_shares
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import build_network
from longtail.sampling import ClassBalancedSampling
from longtail.types import Batch, Progress


def test_every_class_is_filled_up_to_the_sum_of_the_largest_and_the_smallest():
    counts = [500, 100, 5]
    shares = made_shares(counts, large=False)
    assert shares == [5 / 505, 405 / 505, 500 / 505]
    assert [n / (1 - share) for n, share in zip(counts, shares, strict=True)] == pytest.approx([505] * 3)


def test_on_large_sets_only_small_classes_and_at_most_a_hundred():
    assert made_shares([1000, 100, 99, 2], large=True) == [0, 0, 100 / 199, 100 / 102]


def test_maps_are_those_of_the_network_when_the_stage_began():
    torch.manual_seed(0)
    network = build_network("small", 3, 1)
    objective = MovedForegrounds(SupervisedObjective(CrossEntropyLoss([9, 9, 9])), [1.0, 1.0, 0.0])
    objective.prepare(network, network)
    assert objective.guide.network is not network
    assert not objective.guide.training
    batch = Batch(torch.randn(30, 1, 8, 8), torch.arange(30) % 3, torch.arange(30))
    torch.manual_seed(1)
    before = objective.moved(batch)
    changed = (before != batch.images).flatten(1).any(1)
    assert not changed[batch.targets == 2].any()
    assert changed[batch.targets != 2].sum() > 10
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    torch.manual_seed(1)
    assert torch.equal(objective.moved(batch), before)


def test_without_made_images_it_is_the_plain_loss():
    network = build_network("small", 3, 1)
    plain = SupervisedObjective(CrossEntropyLoss([9, 9, 9]))
    objective = MovedForegrounds(plain, [0.0] * 3)
    objective.prepare(network, network)
    batches = (Batch(torch.randn(6, 1, 8, 8), torch.arange(6) % 3, torch.arange(6)),)
    network.eval()
    assert torch.equal(objective(network, batches, Progress(0, 1)), plain(network, batches, Progress(0, 1)))


def test_it_begins_late_and_goes_on_with_optimiser_and_schedule(digits):
    early, late = recipe_of("ce+cam", digits).stages
    assert late.sampling == (ClassBalancedSampling(),)
    assert late.continues
    assert (early.epochs, late.epochs) == (24, 6)
    assert isinstance(late.objective, MovedForegrounds)
    assert early.objective.criterion.class_weights is None


def test_with_mixup_it_is_the_best_combination_of_its_authors(digits):
    early, late, last = recipe_of("ce+mixup+cam", digits).stages
    assert isinstance(early.mixing, Mixup)
    assert late.mixing is None, "mixing before the foregrounds are moved would leave none to move"
    assert late.objective.mixing == early.mixing
    assert last.mixing is None
    assert last.sampling == (ClassBalancedSampling(),)
    assert last.epochs == 3
    assert last.optimizer.lr == early.optimizer.lr / 100
    assert [last.schedule.factor(e) for e in range(3)] == [1, 0.1, 0.01]
    assert recipe_of("ce+mixup+cam", digits, epochs=10).stages[-1].schedule.factor(0) == 1


def test_the_end_without_mixing_can_be_left_out(digits):
    assert len(recipe_of("ce+mixup+cam", digits, finetune=0.0).stages) == 2
    with pytest.raises(longtail.UsageError, match=r"finetune is 2\.0"):
        recipe_of("ce+mixup+cam", digits, finetune=2.0)


def test_images_are_mixed_after_foregrounds_have_moved():
    network = build_network("small", 3, 1).eval()
    plain = SupervisedObjective(CrossEntropyLoss([9, 9, 9]))
    objective = MovedForegrounds(plain, [1.0] * 3, Mixup(per_batch=True))
    objective.prepare(network, network)
    batch = Batch(torch.randn(6, 1, 8, 8), torch.arange(6) % 3, torch.arange(6))
    torch.manual_seed(1)
    loss = objective(network, (batch,), Progress(0, 1))
    torch.manual_seed(1)
    moved = replace(batch, images=objective.moved(batch))
    mixed = Mixup(per_batch=True)(moved, torch.Generator().manual_seed(1 + 1))
    assert not torch.equal(moved.images, batch.images)
    z = network(mixed.images)
    first, second = (torch.nn.functional.cross_entropy(z, t) for t in (mixed.targets, mixed.mixed_targets))
    torch.testing.assert_close(loss, mixed.lam[0] * first + (1 - mixed.lam[0]) * second)


@pytest.mark.parametrize("name", ["ce+drw+cam", "cb-ce+cam", "ride+cam", "crt+cam", "ce+cmo+cam"])
def test_what_balances_already_is_refused(name, digits):
    with pytest.raises(longtail.UsageError, match=r"\+cam "):
        recipe_of(name, digits)
