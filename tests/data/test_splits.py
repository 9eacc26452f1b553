"""Class counts, LDAM-DRW's and Longtail_DA's subsets, dev splits."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail.data import dev_split, long_tail_counts, long_tail_indices, longtail_da_indices
from longtail.errors import UsageError

# Totals and smallest classes of the published subsets: (n_max, classes) -> {imbalance: (total, smallest)}.
EXP_TOTALS = {
    (5000, 10): {
        1: (50000, 5000), 10: (20431, 500), 20: (17023, 250), 50: (13996, 100), 100: (12406, 50), 200: (11203, 25),
    },
    (500, 100): {
        1: (50000, 500), 10: (19573, 50), 20: (15907, 25), 50: (12608, 10), 100: (10847, 5), 200: (9502, 2),
    },
    (4990, 10): {
        1: (49900, 4990), 10: (20391, 499), 20: (16989, 249), 50: (13967, 99), 100: (12380, 49), 200: (11177, 24),
    },
    (490, 100): {
        1: (49000, 490), 10: (19183, 49), 20: (15594, 24), 50: (12354, 9), 100: (10626, 4), 200: (9304, 2),
    },
}  # fmt: skip
STEP_TOTALS = {
    (5000, 10): {10: 27500, 20: 26250, 50: 25500, 100: 25250, 200: 25125},
    (500, 100): {10: 27500, 20: 26250, 50: 25500, 100: 25250, 200: 25100},
}
# Many (> 100), medium (20..100) and few (< 20) classes of CIFAR-100-LT.
SHOTS = {1: (100, 0, 0), 10: (69, 31, 0), 20: (53, 47, 0), 50: (41, 41, 18), 100: (35, 35, 30), 200: (30, 31, 39)}


@pytest.mark.parametrize(
    ("n_max", "classes", "imbalance", "expected"),
    [(*key, imbalance, pair) for key, rows in EXP_TOTALS.items() for imbalance, pair in rows.items()],
)
def test_exponential_totals_are_the_published_ones(n_max, classes, imbalance, expected):
    counts = long_tail_counts(n_max, classes, imbalance)
    assert (sum(counts), counts[-1]) == expected
    assert counts[0] == n_max


@pytest.mark.parametrize(
    ("n_max", "classes", "imbalance", "total"),
    [(*key, imbalance, total) for key, rows in STEP_TOTALS.items() for imbalance, total in rows.items()],
)
def test_step_totals_are_the_published_ones(n_max, classes, imbalance, total):
    assert sum(long_tail_counts(n_max, classes, imbalance, "step")) == total


def test_exponential_lists():
    assert long_tail_counts(5000, 10, 100) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert long_tail_counts(5000, 10, 200) == [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25]
    assert long_tail_counts(4990, 10, 50) == [4990, 3230, 2091, 1354, 877, 567, 367, 238, 154, 99]
    assert long_tail_counts(120, 10, 50) == [120, 77, 50, 32, 21, 13, 8, 5, 3, 2]


@pytest.mark.parametrize(("imbalance", "groups"), SHOTS.items())
def test_shot_groups_of_cifar100(imbalance, groups):
    counts = np.array(long_tail_counts(500, 100, imbalance))
    assert ((counts > 100).sum(), ((counts >= 20) & (counts <= 100)).sum(), (counts < 20).sum()) == groups


def test_step_keeps_the_middle_class_of_an_odd_number():
    assert long_tail_counts(50, 5, 10, "step") == [50, 50, 50, 5, 5]
    assert long_tail_counts(50, 1, 10, "step") == [50]


def test_one_class_keeps_all():
    assert long_tail_counts(50, 1, 10) == [50]


@pytest.mark.parametrize("imbalance", [0.99, 0, -3, float("nan"), float("inf")])
def test_imbalance_below_one_or_not_finite_is_wrong_use(imbalance):
    with pytest.raises(UsageError, match="at least 1"):
        long_tail_counts(500, 100, imbalance)


def test_empty_classes_are_named():
    with pytest.raises(UsageError, match=r"3 of 10 classes \(classes 7 to 9\).*120") as error:
        long_tail_counts(120, 10, 1000)
    assert "below 120" in error.value.fix
    with pytest.raises(UsageError, match=r"1 of 10 classes \(class 9\)"):
        long_tail_counts(120, 10, 130)
    with pytest.raises(UsageError, match=r"2 of 4 classes \(classes 2 to 3\)"):
        long_tail_counts(5, 4, 6, "step")


def test_wrong_profile_and_sizes():
    with pytest.raises(UsageError, match="profile 'pareto'") as error:
        long_tail_counts(500, 100, 10, "pareto")
    assert "exp, step" in error.value.fix
    for n_max, classes in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            long_tail_counts(n_max, classes, 10)


@given(
    n_max=st.integers(1, 6000),
    classes=st.integers(1, 120),
    imbalance=st.floats(1, 500),
    profile=st.sampled_from(["exp", "step"]),
)
def test_counts_fall_from_head_to_tail(n_max, classes, imbalance, profile):
    try:
        counts = long_tail_counts(n_max, classes, imbalance, profile)
    except UsageError:
        assert imbalance > n_max * (1 - 1e-12)
        return
    assert len(counts) == classes
    assert counts[0] == n_max
    assert counts == sorted(counts, reverse=True)
    if classes > 1:
        assert counts[-1] == pytest.approx(n_max / imbalance, abs=1 + 1e-9)


def test_subset_is_pinned():
    """Literal draws of numpy's legacy generator, so that a change in numpy cannot pass unseen."""
    assert long_tail_indices([0] * 5 + [1] * 5, [3, 2], seed=0).tolist() == [2, 0, 1, 5, 7]
    assert long_tail_indices([1, 0] * 6, [4, 2], seed=3).tolist() == [7, 11, 9, 3, 10, 8]


def legacy_subset(targets, counts, seed):
    """The published procedure, step by step, on numpy's global generator."""
    np.random.seed(seed)
    kept = []
    for c, count in enumerate(counts):
        where = np.where(np.array(targets) == c)[0]
        np.random.shuffle(where)
        kept.extend(where[:count].tolist())
    return kept


def legacy_dev(targets, per_class):
    np.random.seed(6)
    dev = []
    for c in sorted(set(targets)):
        where = [i for i, label in enumerate(targets) if label == c]
        np.random.shuffle(where)
        dev.extend(where[:per_class])
    return sorted(dev)


def legacy_da_subset(targets, counts):
    random.seed(42)
    dropped = []
    for c, count in enumerate(counts):
        where = [i for i, label in enumerate(targets) if label == c]
        random.shuffle(where)
        dropped.extend(where[count:])
    return np.delete(np.arange(len(targets)), dropped).tolist()


LABELS = np.random.default_rng(5).permutation(np.arange(600) % 6).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2024])
@pytest.mark.parametrize("profile", ["exp", "step"])
def test_subset_equals_the_published_procedure(seed, profile):
    counts = long_tail_counts(100, 6, 20, profile)
    assert long_tail_indices(LABELS, counts, seed).tolist() == legacy_subset(LABELS, counts, seed)


def test_dev_split_equals_the_published_procedure():
    dev, rest = dev_split(LABELS, 6, 10)
    assert dev.tolist() == legacy_dev(LABELS, 10)
    labels = [LABELS[i] for i in rest]
    counts = long_tail_counts(90, 6, 20)
    assert longtail_da_indices(labels, counts).tolist() == legacy_da_subset(labels, counts)


def test_splits_leave_the_global_generators_alone():
    random.seed(9)
    np.random.seed(9)
    before = random.getstate(), np.random.get_state()[1].tolist()
    long_tail_indices(LABELS, [3] * 6)
    longtail_da_indices(LABELS, [3] * 6)
    dev_split(LABELS, 6, 2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


sets = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(lambda extra: [0, 1, 2, 3, 4] * 2 + extra)


@given(targets=sets, seed=st.integers(0, 2**32 - 1), data=st.data(), draw=st.sampled_from(["ldam", "da"]))
def test_subsets_have_the_counts_and_repeat(targets, seed, data, draw):
    full = np.bincount(targets, minlength=5)
    counts = [data.draw(st.integers(0, int(n))) for n in full]
    subset = long_tail_indices if draw == "ldam" else longtail_da_indices
    kept = subset(targets, counts, seed)
    assert kept.dtype == np.int64
    assert len(set(kept.tolist())) == len(kept)
    assert np.bincount(np.array(targets)[kept], minlength=5).tolist() == counts
    assert subset(torch.tensor(targets), counts, seed).tolist() == kept.tolist()


@given(targets=sets, seed=st.integers(0, 2**32 - 1))
def test_dev_split_is_balanced_and_disjoint(targets, seed):
    dev, rest = dev_split(targets, 5, 1, seed)
    assert sorted(dev.tolist() + rest.tolist()) == list(range(len(targets)))
    assert np.bincount(np.array(targets)[dev], minlength=5).tolist() == [1] * 5
    assert dev_split(targets, 5, 1, seed)[0].tolist() == dev.tolist()


def test_other_seed_other_subset():
    counts = [20] * 6
    assert long_tail_indices(LABELS, counts, 0).tolist() != long_tail_indices(LABELS, counts, 1).tolist()
    assert longtail_da_indices(LABELS, counts, 0).tolist() != longtail_da_indices(LABELS, counts, 1).tolist()
    assert dev_split(LABELS, 6, 10, 0)[0].tolist() != dev_split(LABELS, 6, 10, 1)[0].tolist()


def test_smaller_subset_of_the_same_seed_lies_in_the_larger():
    large = set(long_tail_indices(LABELS, [60] * 6, 0).tolist())
    assert set(long_tail_indices(LABELS, [20] * 6, 0).tolist()) < large


def test_asking_for_more_than_there_is():
    for subset in (long_tail_indices, longtail_da_indices):
        with pytest.raises(UsageError, match=r"class 1 has 2 images, 3 are needed \(and 1 more\)"):
            subset([0, 0, 0, 1, 1], [3, 3, 1])
    with pytest.raises(UsageError, match="class 1 has 2 images, 3 are needed\n"):
        dev_split([0, 0, 0, 1, 1], 2, 2)
    with pytest.raises(UsageError, match="at least 1"):
        dev_split([0, 1], 2, 0)
