import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.evaluation import calibration, calibration_of_logits, expected_calibration_error

CASES = [
    case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())["cases"]
    if case["id"].startswith("ece")
]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_bins_and_errors_equal_mislas(case):
    inputs, output = case["inputs"], case["output"]
    correct = np.equal(inputs["predictions"], inputs["labels"])
    # The stored confidences have 13 digits; those on a bin edge must be the very numbers of the edge.
    edges = np.linspace(0, 1, 16)
    confidences = np.array([next((e for e in edges if abs(e - c) < 1e-10), c) for c in inputs["confidences"]])
    result = calibration(confidences, correct, case["hyper"]["num_bins"])
    assert result.counts.tolist() == output["bin_counts"]
    np.testing.assert_allclose(result.accuracies, output["bin_accuracies"], atol=1e-12)
    np.testing.assert_allclose(result.confidences, output["bin_confidences"], atol=1e-12)
    assert result.expected_error == pytest.approx(output["ece"], abs=1e-12)
    assert result.maximum_error == pytest.approx(output["mce"], abs=1e-12)


@given(st.lists(st.tuples(st.floats(0.001, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_expected_error_equals_the_definition(answers, bins):
    confidences, correct = (np.array(column) for column in zip(*answers, strict=True))
    edges = np.linspace(0, 1, bins + 1)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidences > low) & (confidences <= high)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    assert calibration(confidences, correct, bins).expected_error == pytest.approx(expected, abs=1e-12)


def test_softmax_confidences_of_logits():
    logits = np.log([[0.88, 0.12], [0.32, 0.68], [0.66, 0.34]])
    result = calibration_of_logits(logits, [0, 1, 1], bins=10)
    assert result.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 1, 0]
    expected = (abs(1 / 2 - (0.68 + 0.66) / 2) * 2 + abs(1 - 0.88)) / 3
    assert expected_calibration_error(logits, [0, 1, 1], bins=10) == pytest.approx(expected)


def test_perfectly_calibrated_answers_have_no_error():
    confidences = np.repeat([0.25, 0.5, 0.75, 1.0], 4)
    correct = [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1]
    assert calibration(confidences, correct).expected_error == 0


def test_huge_logits_are_certain_and_not_nan():
    assert expected_calibration_error([[1e30, -1e30], [-1e30, 1e30]], [0, 0]) == pytest.approx(0.5)
    assert expected_calibration_error(np.array([[3e38, -3e38]], dtype=np.float32), [0]) == pytest.approx(0)


@pytest.mark.parametrize(
    ("confidences", "correct", "bins", "message"),
    [
        ([0.5, 0.5], [True], 15, r"both be \(N,\)"),
        ([1.5], [True], 15, r"within 0\.\.1"),
        ([float("nan")], [True], 15, r"within 0\.\.1"),
        ([0.5], [True], 0, "bins must be at least 1, got 0"),
    ],
)
def test_wrong_input_is_refused(confidences, correct, bins, message):
    with pytest.raises(ValueError, match=message):
        calibration(confidences, correct, bins)
