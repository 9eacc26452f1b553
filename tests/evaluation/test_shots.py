import json
from pathlib import Path

import numpy as np
import pytest

from longtail.evaluation import shot_groups

CASES = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())["cases"]
CIFAR100 = next(case for case in CASES if case["id"] == "shot_c100_if100")["inputs"]["class_counts"]


def sizes(counts, rule):
    return [len(group) for group in shot_groups(counts, rule).values()]


def test_cifar100_groups_equal_the_official_codes():
    assert sizes(CIFAR100, "kang") == [35, 35, 30]
    assert sizes(CIFAR100, "oltr") == [35, 34, 31]
    assert sizes(CIFAR100, "mislas") == [36, 35, 29]


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("kang", {"many": [4], "medium": [1, 2, 3], "few": [0]}),
        ("oltr", {"many": [3, 4], "medium": [2], "few": [0, 1]}),
    ],
)
def test_borders(rule, groups):
    result = shot_groups([19, 20, 21, 100, 101], rule)
    assert {name: members.tolist() for name, members in result.items()} == groups


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [(10, [3, 4, 3]), (100, [36, 35, 29]), (365, [131, 157, 77]), (1000, [390, 445, 165]), (8142, [842, 3701, 3599])],
)
def test_mislas_group_sizes(num_classes, expected):
    assert sizes(np.arange(num_classes) + 1, "mislas") == expected


def test_mislas_ranks_by_count_then_by_label():
    groups = shot_groups([5, 1, 9, 5, 5, 7, 1, 3, 2, 8], "mislas")
    assert groups["many"].tolist() == [2, 5, 9]
    assert groups["medium"].tolist() == [0, 3, 4, 7]
    assert groups["few"].tolist() == [1, 6, 8]


@pytest.mark.parametrize("rule", ["kang", "oltr", "mislas"])
@pytest.mark.parametrize("counts", [[7], [0, 500], [200] * 4, CIFAR100])
def test_every_class_is_in_exactly_one_group(rule, counts):
    members = np.concatenate(list(shot_groups(counts, rule).values()))
    assert sorted(members.tolist()) == list(range(len(counts)))


@pytest.mark.parametrize("counts", [[], [[1, 2]], [3, -1]])
def test_what_is_no_list_of_counts_is_refused(counts):
    with pytest.raises(ValueError, match="list of counts >= 0"):
        shot_groups(counts)


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="one of kang, oltr, mislas, got 'ride'"):
        shot_groups([1, 2], "ride")
