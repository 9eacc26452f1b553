"""Class probabilities against what the official code computes, and their limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail.sampling import (
    ProgressiveSampling,
    class_probabilities,
    effective_number_probabilities,
    progressive_probabilities,
    reverse_probabilities,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation.json"
CASES = {case["id"]: case for case in json.loads(GOLDEN.read_text())["cases"]}


def matching(*prefixes):
    return [case for name, case in CASES.items() if name.startswith(prefixes) and "class_probability" in case["output"]]


def names(case):
    return case["id"]


def check(case, probabilities):
    expected = torch.tensor(case["output"]["class_probability"], dtype=torch.float64)
    torch.testing.assert_close(probabilities, expected, rtol=1e-11, atol=1e-13)


def test_no_sampling_case_is_left_out():
    assert len(matching("kang_progressive", "bot_progressive")) == 12
    assert len(matching("kang_sqrt", "bot_square", "bbn_reverse", "effective_number")) == 7


@pytest.mark.parametrize("case", matching("kang_progressive"), ids=names)
def test_golden_progressive(case):
    epoch, epochs = case["hyper"]["epoch"], case["hyper"]["epochs"]
    check(case, progressive_probabilities(case["inputs"]["class_counts"], epoch / (epochs - 1)))
    counts = torch.tensor(case["inputs"]["class_counts"])
    check(case, ProgressiveSampling().probabilities(counts, epoch, epochs))


@pytest.mark.parametrize("case", matching("bot_progressive"), ids=names)
def test_golden_progressive_of_bag_of_tricks(case):
    t = case["hyper"]["epoch"] / case["hyper"]["MAX_EPOCH"]
    check(case, progressive_probabilities(case["inputs"]["class_counts"], t))


@pytest.mark.parametrize("case", matching("kang_sqrt", "bot_square"), ids=names)
def test_golden_square_root(case):
    check(case, class_probabilities(case["inputs"]["class_counts"], 0.5))


@pytest.mark.parametrize("case", matching("bbn_reverse"), ids=names)
def test_golden_reverse(case):
    check(case, reverse_probabilities(case["inputs"]["class_counts"]))


@pytest.mark.parametrize("case", matching("effective_number"), ids=names)
def test_golden_effective_number(case):
    check(case, effective_number_probabilities(case["inputs"]["class_counts"], case["hyper"]["beta"]))


STRATEGIES = [
    lambda counts: class_probabilities(counts, 0.3),
    lambda counts: class_probabilities(counts, 0),
    lambda counts: progressive_probabilities(counts, 0.4),
    reverse_probabilities,
    effective_number_probabilities,
    lambda counts: effective_number_probabilities(counts, 0),
    lambda counts: effective_number_probabilities(counts, 1),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(counts=st.lists(st.integers(0, 10**7), min_size=1, max_size=30).filter(any))
def test_probabilities_add_up_and_empty_classes_have_none(strategy, counts):
    probabilities = strategy(counts)
    assert probabilities.dtype == torch.float64
    assert probabilities.sum().item() == pytest.approx(1)
    assert [p > 0 for p in probabilities.tolist()] == [n > 0 for n in counts]
    torch.testing.assert_close(strategy(torch.tensor(counts)), probabilities)


COUNTS = [500, 60, 7, 0, 1]


def test_special_cases_agree():
    torch.testing.assert_close(
        class_probabilities(COUNTS, 1), torch.tensor([500, 60, 7, 0, 1], dtype=torch.float64) / 568
    )
    assert class_probabilities(COUNTS, 0).tolist() == [0.25, 0.25, 0.25, 0, 0.25]
    for t in (0, 1):
        torch.testing.assert_close(progressive_probabilities(COUNTS, t), class_probabilities(COUNTS, 1 - t))
    torch.testing.assert_close(
        effective_number_probabilities(COUNTS, 1 - 1e-12), class_probabilities(COUNTS, 0), rtol=1e-8, atol=0
    )
    torch.testing.assert_close(
        effective_number_probabilities(COUNTS, 1e-12), class_probabilities(COUNTS, 1), rtol=1e-8, atol=0
    )


def test_no_power_overflows():
    assert class_probabilities([10**9, 1], 1000).tolist() == [1, 0]
    assert class_probabilities([10**9, 10**9], 50).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1], [[1, 2]]])
def test_wrong_counts(counts):
    with pytest.raises(ValueError, match="class_counts must be"):
        class_probabilities(counts, 1)
    with pytest.raises(ValueError, match="class_counts must be"):
        effective_number_probabilities(counts)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=r"t must lie in 0\.\.1"):
        progressive_probabilities(COUNTS, wrong)
    with pytest.raises(ValueError, match=r"beta must lie in 0\.\.1"):
        effective_number_probabilities(COUNTS, wrong)
    with pytest.raises(ValueError, match="q must be finite"):
        class_probabilities(COUNTS, float("nan"))
