"""What every strategy draws: exact counts where the strategy fixes them, frequencies within bounds elsewhere."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail.sampling import (
    ClassBalancedSampling,
    ClassIndex,
    CyclicClassSampling,
    DeferredSampling,
    EffectiveNumberSampling,
    InstanceSampling,
    OverSampling,
    PowerSampling,
    ProgressiveSampling,
    ReverseSampling,
    SquareRootSampling,
    UnderSampling,
    class_probabilities,
    effective_number_probabilities,
    epoch_indices,
    progressive_probabilities,
    reverse_probabilities,
)
from longtail.sampling.draws import draw_images

DRAWING = {
    ClassBalancedSampling(): lambda counts: class_probabilities(counts, 0),
    PowerSampling(0.25): lambda counts: class_probabilities(counts, 0.25),
    SquareRootSampling(): lambda counts: class_probabilities(counts, 0.5),
    ProgressiveSampling(): lambda counts: progressive_probabilities(counts, 0.5),
    ReverseSampling(): reverse_probabilities,
    EffectiveNumberSampling(): effective_number_probabilities,
}
DEFERRED = DeferredSampling(InstanceSampling(), ClassBalancedSampling(), 2)
ALL = [
    InstanceSampling(),
    *DRAWING,
    OverSampling(),
    UnderSampling(),
    CyclicClassSampling(),
    CyclicClassSampling(1),
    DEFERRED,
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def index_of(counts, seed=0):
    """A training set with these class counts, in mixed order."""
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return ClassIndex(targets[torch.randperm(len(targets), generator=generator(seed))], len(counts))


def drawn_counts(index, indices):
    return torch.bincount(index.targets[indices], minlength=index.num_classes).tolist()


class_counts = st.lists(st.integers(0, 25), min_size=1, max_size=8).filter(any)


@pytest.mark.parametrize("sampling", ALL, ids=repr)
@given(counts=class_counts, seed=st.integers(0, 2**31))
def test_every_strategy_keeps_the_contract(sampling, counts, seed):
    index = index_of(counts, seed)
    drawn = sampling.epoch(index, 2, 5, generator(seed))
    assert drawn.dtype == torch.int64
    assert drawn.shape == (sampling.length(index),)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < len(index)
    assert torch.equal(drawn, sampling.epoch(index, 2, 5, generator(seed)))
    if not isinstance(sampling, OverSampling | UnderSampling):
        assert len(drawn) == sum(counts)


@pytest.mark.parametrize("sampling", ALL, ids=repr)
def test_strategies_are_values_and_follow_the_generator(sampling):
    index = index_of([40, 30, 20])
    assert not torch.equal(sampling.epoch(index, 0, 5, generator(1)), sampling.epoch(index, 0, 5, generator(2)))
    assert sampling == dataclasses.replace(sampling)
    state = torch.get_rng_state()
    sampling.epoch(index, 0, 5, generator())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("sampling", "probabilities"), DRAWING.items(), ids=map(repr, DRAWING))
@pytest.mark.parametrize("counts", [[900, 300, 90, 0, 30, 3], [5, 0, 0, 4000]])
def test_class_frequencies(sampling, probabilities, counts):
    """Within five standard deviations of the binomial; class 0 and its images besides."""
    index = index_of(counts)
    drawn = torch.cat([sampling.epoch(index, 2, 5, generator(seed)) for seed in range(20)])
    seen = drawn_counts(index, drawn)
    for p, n in zip(probabilities(counts).tolist(), seen, strict=True):
        assert abs(n - p * len(drawn)) <= 5 * math.sqrt(len(drawn) * p * (1 - p))
    per_image = torch.bincount(drawn, minlength=len(index))
    for c, n in enumerate(counts):
        mine = per_image[index.targets == c]
        if n > 1:  # the images of a class share its draws evenly
            p = 1 / n
            assert (mine - seen[c] * p).abs().max() <= 6 * math.sqrt(seen[c] * p * (1 - p)) + 1


def test_progressive_moves_from_instance_to_class_balanced():
    index = index_of([3000, 30])
    shares = [drawn_counts(index, ProgressiveSampling().epoch(index, e, 5, generator()))[1] / 3030 for e in range(5)]
    assert shares == pytest.approx([0.0099, 0.1324, 0.255, 0.3775, 0.5], abs=0.045)
    assert shares == sorted(shares)
    assert ProgressiveSampling().probabilities(torch.tensor([3, 1]), 0, 1).tolist() == [0.75, 0.25]
    for epoch in (-1, 5):
        with pytest.raises(ValueError, match=rf"epoch {epoch} is outside 0\.\.4"):
            ProgressiveSampling().epoch(index, epoch, 5, generator())


def test_a_class_of_probability_zero_is_never_drawn():
    index = index_of([10, 10, 10, 10])
    drawn = draw_images(index, torch.tensor([0, 0.5, 0, 0.5], dtype=torch.float64), 5000, generator())
    assert drawn_counts(index, drawn)[::2] == [0, 0]


@pytest.mark.parametrize(("point", "expected"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_unit_interval(monkeypatch, point, expected):
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), point, dtype=torch.float64))
    index = index_of([10, 10, 10, 10, 0])
    drawn = draw_images(index, torch.tensor([0, 0.5, 0, 0.3, 0], dtype=torch.float64), 3, generator())
    assert index.targets[drawn].tolist() == [expected] * 3


@given(counts=class_counts, seed=st.integers(0, 2**31))
def test_instance_sampling_is_a_permutation(counts, seed):
    index = index_of(counts)
    assert sorted(InstanceSampling().epoch(index, 0, 1, generator(seed)).tolist()) == list(range(len(index)))


@given(counts=class_counts, seed=st.integers(0, 2**31))
def test_over_sampling_fills_every_class_evenly(counts, seed):
    index = index_of(counts)
    drawn = OverSampling().epoch(index, 0, 1, generator(seed))
    assert drawn_counts(index, drawn) == [max(counts) if n else 0 for n in counts]
    repeats = torch.bincount(drawn, minlength=len(index))
    for c, n in enumerate(counts):
        if n:
            mine = sorted(repeats[index.targets == c].tolist())
            more = max(counts) % n
            assert mine == [max(counts) // n] * (n - more) + [max(counts) // n + 1] * more


@given(counts=class_counts, seed=st.integers(0, 2**31))
def test_under_sampling_cuts_every_class_to_the_smallest(counts, seed):
    index = index_of(counts)
    drawn = UnderSampling().epoch(index, 0, 1, generator(seed))
    smallest = min(n for n in counts if n)
    assert drawn_counts(index, drawn) == [smallest if n else 0 for n in counts]
    assert len(set(drawn.tolist())) == len(drawn)


@pytest.mark.parametrize("sampling", [OverSampling(), UnderSampling()])
def test_over_and_under_sampling_mix_the_classes_and_choose_evenly(sampling):
    index = index_of([12, 8])
    drawn = torch.stack([sampling.epoch(index, 0, 1, generator(seed)) for seed in range(600)])
    first = (index.targets[drawn[:, 0]] == 0).double().mean().item()
    assert first == pytest.approx(0.5, abs=0.1)
    repeats = torch.bincount(drawn.flatten(), minlength=20)
    expected = torch.where(
        index.targets == 0, *(torch.tensor([1.0, 1.5]) if sampling == OverSampling() else (8 / 12, 1.0))
    )
    assert (repeats / 600 - expected).abs().max() < 0.1


@given(counts=class_counts, samples=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_cyclic_sampling_keeps_both_cycles(counts, samples, seed):
    index = index_of(counts)
    drawn = CyclicClassSampling(samples).epoch(index, 0, 1, generator(seed)).tolist()
    classes = index.targets[drawn].tolist()
    present = [c for c, n in enumerate(counts) if n]
    turns = [set(classes[at : at + samples]) for at in range(0, len(classes), samples)]
    assert all(len(turn) == 1 for turn in turns)
    order = [turn.pop() for turn in turns]
    for at in range(0, len(order), len(present)):
        cycle = order[at : at + len(present)]
        assert len(set(cycle)) == len(cycle)
        assert len(cycle) < len(present) or sorted(cycle) == present
    for c in present:
        mine = [image for image, label in zip(drawn, classes, strict=True) if label == c]
        for at in range(0, len(mine), counts[c]):
            turn = mine[at : at + counts[c]]
            assert len(set(turn)) == len(turn)


def test_cyclic_sampling_shuffles_classes_and_images():
    index = index_of([200, 200, 200])
    drawn = CyclicClassSampling(1).epoch(index, 0, 1, generator())
    cycles = index.targets[drawn].view(-1, 3)
    assert len({tuple(cycle) for cycle in cycles.tolist()}) == 6
    small = index_of([600, 3])
    mine = CyclicClassSampling(3).epoch(small, 0, 1, generator()).tolist()
    tail = [image for image in mine if small.targets[image] == 1]
    assert len({tuple(tail[at : at + 3]) for at in range(0, len(tail), 3)}) == 6


def test_published_lengths():
    counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    index = index_of(counts)
    assert [s.length(index) for s in (OverSampling(), UnderSampling(), CyclicClassSampling())] == [50000, 500, 12406]


def test_wrong_settings():
    with pytest.raises(ValueError, match="q must be finite"):
        PowerSampling(float("inf"))
    with pytest.raises(ValueError, match="beta must lie"):
        EffectiveNumberSampling(1.5)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        CyclicClassSampling(0)


def test_class_balanced_is_power_zero():
    index = index_of([50, 5])
    one = epoch_indices(ClassBalancedSampling(), index, seed=1, epoch=0, epochs=1)
    assert torch.equal(one, epoch_indices(PowerSampling(0), index, seed=1, epoch=0, epochs=1))


def test_deferred_sampling_is_the_one_strategy_and_then_the_other():
    index = index_of([9, 4, 1])
    for epoch in range(4):
        part = DEFERRED.early if epoch < 2 else DEFERRED.late
        assert torch.equal(DEFERRED.epoch(index, epoch, 4, generator()), part.epoch(index, epoch, 4, generator()))
    assert DEFERRED.length(index) == 14
    with pytest.raises(ValueError, match="14 and 27"):
        DeferredSampling(InstanceSampling(), OverSampling(), 2).length(index)
