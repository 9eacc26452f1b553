"""Splits against what the official code drew: the counts anywhere, the images where the real labels are."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from longtail.data import dev_split, long_tail_counts, long_tail_indices, longtail_da_indices


def sha256(indices):
    return hashlib.sha256(np.asarray(indices).astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_real_label_order(name, real_targets, golden_data):
    case = golden_data[f"label_order_{name}"]["output"]
    assert sha256(real_targets[name]) == case["sha256_int64le_labels"]


def golden_ids(prefix):
    names = {
        "ldamdrw": [
            *(f"ldamdrw_cifar10_exp_if{f}_seed0" for f in (10, 20, 50, 100)),
            *(f"ldamdrw_cifar100_exp_if{f}_seed0" for f in (20, 50, 100, 200)),
            "ldamdrw_cifar10_step_if10_seed0",
            "ldamdrw_cifar10_step_if100_seed0",
            "ldamdrw_cifar100_step_if100_seed0",
        ],
        "longtailda": [
            *(f"longtailda_train_cifar10_if{f}" for f in (20, 200)),
            *(f"longtailda_train_cifar100_if{f}" for f in (1, 10, 100, 200)),
        ],
    }
    return names[prefix]


def test_every_golden_case_is_used(golden_data):
    used = {*golden_ids("ldamdrw"), *golden_ids("longtailda"), "longtailda_dev_cifar100"}
    used |= {f"bbn_{name}_if50_seed0" for name in ("cifar10", "cifar100")}
    used |= {f"label_order_{name}" for name in ("cifar10", "cifar100")}
    assert used == set(golden_data)


@pytest.mark.parametrize("case_id", golden_ids("ldamdrw"))
def test_golden_counts_without_the_images(case_id, golden_data):
    case = golden_data[case_id]
    _, name, profile, factor, _ = case_id.split("_")
    n_max, classes = (5000, 10) if name == "cifar10" else (500, 100)
    assert long_tail_counts(n_max, classes, float(factor[2:]), profile) == case["output"]["class_counts"]


@pytest.mark.parametrize("case_id", golden_ids("longtailda"))
def test_golden_counts_beside_a_dev_set(case_id, golden_data):
    _, _, name, factor = case_id.split("_")
    n_max, classes = (4990, 10) if name == "cifar10" else (490, 100)
    assert long_tail_counts(n_max, classes, float(factor[2:])) == golden_data[case_id]["output"]["class_counts"]


@pytest.mark.parametrize("case_id", golden_ids("ldamdrw"))
def test_golden_ldam_drw_subsets(case_id, real_targets, golden_data):
    case = golden_data[case_id]["output"]
    kept = long_tail_indices(real_targets[case_id.split("_")[1]], case["class_counts"], seed=0)
    assert kept[:20].tolist() == case["first20"]
    assert sha256(kept) == case["sha256_int64le"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_golden_bbn_subset(name, real_targets, golden_data):
    n_max, classes = (5000, 10) if name == "cifar10" else (500, 100)
    kept = long_tail_indices(real_targets[name], long_tail_counts(n_max, classes, 50))
    assert sha256(kept) == golden_data[f"bbn_{name}_if50_seed0"]["output"]["sha256_int64le"]


def test_golden_dev_split(real_targets, golden_data):
    case = golden_data["longtailda_dev_cifar100"]["output"]
    dev, _ = dev_split(real_targets["cifar100"], 100)
    assert dev.tolist() == case["all_dev_indices"]


@pytest.mark.parametrize("case_id", golden_ids("longtailda"))
def test_golden_longtail_da_subsets(case_id, real_targets, golden_data):
    case = golden_data[case_id]["output"]
    targets = real_targets[case_id.split("_")[2]]
    _, rest = dev_split(targets, len(case["class_counts"]))
    kept = rest[longtail_da_indices(targets[rest], case["class_counts"])]
    assert kept[:20].tolist() == case["first20"]
    assert sha256(kept) == case["sha256_int64le"]
