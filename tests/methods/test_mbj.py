"""Memory-based jitter: what enters the memory, and what the classifier learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recipes import recipe_of
from resuming import goes_on_to_the_same_bits

import longtail
from longtail.data import long_tail_counts
from longtail.losses import CrossEntropyLoss
from longtail.methods.feature_queue import FeatureQueue
from longtail.methods.mbj import MemoryBasedJitter, memory_size
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import build_network
from longtail.types import Batch, Progress

COUNTS = [100, 10, 5]
PROGRESS = Progress(0, 1)


def prepared(network, **options: float) -> MemoryBasedJitter:
    objective = MemoryBasedJitter(SupervisedObjective(CrossEntropyLoss(COUNTS)), COUNTS, **options)
    objective.prepare(network, network)
    return objective


def batch(size: int = 12) -> Batch:
    torch.manual_seed(size)
    return Batch(torch.randn(size, 1, 8, 8), torch.arange(size) % 3, torch.arange(size))


def test_without_memory_it_is_cross_entropy():
    network = build_network("small", 3, 1).eval()
    plain = SupervisedObjective(CrossEntropyLoss(COUNTS))
    assert prepared(network, memory=8)(network, (batch(),), PROGRESS) == plain(network, (batch(),), PROGRESS)


def test_the_second_step_adds_the_mean_loss_of_the_memory():
    network = build_network("small", 3, 1).eval()
    objective = prepared(network, memory=20, power=0.0)  # everything enters
    objective(network, (batch(12),), PROGRESS)
    with torch.no_grad():
        seen = network.features(batch(12).images)
        torch.testing.assert_close(objective.memory.features[:12], seen)
        for parameter in network.parameters():
            parameter.mul_(1.1)
    loss = objective(network, (batch(6),), PROGRESS)

    def mean(features, targets) -> float:
        z = network.head(features).detach().double().numpy()
        return float(np.mean([np.log(np.exp(row).sum()) - row[y] for row, y in zip(z, targets.tolist(), strict=True)]))

    expected = mean(network.features(batch(6).images), batch(6).targets) + mean(seen, batch(12).targets)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert objective.memory.targets.tolist()[12:18] == batch(6).targets.tolist(), "the newest come behind"


def test_the_memory_teaches_the_classifier_alone():
    network = build_network("small", 3, 1).eval()
    objective = prepared(network, memory=20, power=0.0)
    objective(network, (batch(12),), PROGRESS)
    network.zero_grad()
    objective.remembered(network.head).backward()
    assert network.head.weight.grad.any()
    assert all(p.grad is None for p in network.backbone.parameters())


def test_classes_are_even_in_the_memory():
    torch.manual_seed(0)
    network = build_network("small", 3, 1).eval()
    objective = prepared(network, memory=4000)
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    images = Batch(torch.randn(len(targets), 1, 8, 8), targets, torch.arange(len(targets)))
    with torch.no_grad():
        for _ in range(200):
            objective(network, (images,), PROGRESS)
    inside = torch.bincount(objective.memory.targets[objective.memory.targets >= 0], minlength=3)
    assert inside[2] == 5 * 200, "the rarest class always enters"
    assert inside.tolist() == pytest.approx([1000, 1000, 1000], rel=0.12)


def test_what_has_no_class_is_left_out_of_the_queue_and_moves_nothing():
    queue = FeatureQueue(5, 1)
    history: list[int] = []
    for targets in ([-1, 7, -1], [3], [-1, -1], [4, -1, 5, 6], [-1, 8, 9, -1, -1, 1, 2]):
        before = queue.features.clone()
        queue.push(torch.tensor(targets)[:, None].float(), torch.tensor(targets))
        history += [t for t in targets if t >= 0]
        latest = history[-5:]
        assert sorted(t for t in queue.targets.tolist() if t >= 0) == sorted(latest)
        rows = zip(queue.targets.tolist(), queue.features.flatten().tolist(), before.flatten().tolist(), strict=True)
        assert all(f == (t if t >= 0 else b) for t, f, b in rows)


def test_the_memory_holds_eight_epochs_of_what_enters():
    assert memory_size([500, 50, 5, 0], 1.0) == 8 * 15
    assert memory_size([500, 50, 5, 0], 0.0) == 8 * 555
    assert memory_size(long_tail_counts(500, 100, 100), 1.0) == 8 * 500
    assert memory_size([5000] * 10, 1.0) == 16_384


def test_it_begins_late_and_goes_on_with_the_optimiser(digits):
    early, late = recipe_of("mbj", digits).stages
    assert (early.epochs, late.epochs, late.continues) == (24, 6, True)
    assert early.objective.criterion.class_weights is None
    assert isinstance(late.objective, MemoryBasedJitter)


@pytest.mark.parametrize("bad", [{"memory": 0}, {"power": -1.0}, {"power": float("inf")}, {"start": 1.5}])
def test_numbers_out_of_range_are_refused(bad, digits):
    with pytest.raises(longtail.UsageError):
        recipe_of("mbj", digits, **bad)


def test_a_run_killed_in_the_second_stage_goes_on_to_the_same_bits(digits, plain_run, tmp_path, monkeypatch):
    options = {**plain_run, "epochs": 4, "start": 0.3}
    assert goes_on_to_the_same_bits("mbj", digits, 28, tmp_path, monkeypatch, **options)
