import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from longtail.evaluation import class_accuracies, confusion_matrix, metrics, top_k_accuracy

CASES = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())["cases"]
SHOT = next(case for case in CASES if case["id"] == "shot_c100_if100")
NAMES = {"top1", "top5", "many", "medium", "few", "per_class", "ece"}


def one_hot(predictions, num_classes):
    return np.eye(num_classes)[predictions]


@pytest.mark.parametrize("rule", ["kang", "oltr"])
def test_shot_accuracies_equal_the_official_codes(rule):
    counts, predictions = SHOT["inputs"]["class_counts"], SHOT["inputs"]["predictions"]
    result = metrics(one_hot(predictions, 100), np.repeat(np.arange(100), 2), counts, rule)
    groups = [result[name] for name in ("many", "medium", "few")]
    np.testing.assert_allclose(groups, 100 * np.array(SHOT["output"][f"{rule}_many_medium_few"]), atol=1e-9)
    np.testing.assert_allclose(result["per_class"], 100 * np.array(SHOT["output"]["per_class_accuracy"]), atol=1e-9)
    assert result["top1"] == pytest.approx(100 * SHOT["output"]["micro_accuracy"])


def test_a_small_example_by_hand():
    targets = [0, 0, 0, 0, 1, 1, 2, 2, 4]
    predictions = [0, 0, 0, 1, 1, 0, 2, 2, 4]
    result = metrics(one_hot(predictions, 5), targets, [300, 200, 50, 10, 10])
    assert result["top1"] == pytest.approx(100 * 7 / 9)
    assert result["top5"] is None
    assert result["per_class"] == pytest.approx([75, 50, 100, None, 100])
    assert (result["many"], result["medium"], result["few"]) == pytest.approx((62.5, 100, 100))
    assert result["balanced_accuracy"] == pytest.approx(325 / 4)
    assert result["harmonic_mean"] == pytest.approx(4 / (1 / 75 + 1 / 50 + 2 / 100))
    assert result["geometric_mean"] == pytest.approx((75 * 50 * 100 * 100) ** 0.25)
    assert result["worst_class"] == {"class": 1, "accuracy": pytest.approx(50)}


def test_a_class_that_is_never_recognised_zeroes_the_strict_means():
    result = metrics(one_hot([0, 0, 2], 3), [0, 1, 2], [3, 2, 1])
    assert result["harmonic_mean"] == result["geometric_mean"] == 0
    assert result["worst_class"] == {"class": 1, "accuracy": 0}


def test_an_empty_group_and_one_without_test_images_are_none():
    result = metrics(one_hot([0, 1], 3), [0, 1], [500, 400, 5])
    assert result["many"] == 100
    assert result["medium"] is None
    assert result["few"] is None


def test_the_result_is_json_and_has_every_name():
    rng = np.random.default_rng(0)
    result = metrics(rng.normal(size=(50, 8)), rng.integers(0, 8, 50), [1000, 500, 90, 80, 70, 9, 8, 7])
    assert set(result) >= NAMES
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@given(st.integers(2, 12), st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=40)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")  # scikit-learn's
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # scikit-learn's
def test_overall_numbers_equal_scikit_learns(num_classes, size, seed):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(size, num_classes)), rng.integers(0, num_classes, size)
    result = metrics(logits, targets, rng.integers(0, 300, num_classes))
    predictions = logits.argmax(1)
    assert result["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(targets, predictions))
    assert result["top1"] == pytest.approx(100 * np.mean(predictions == targets))
    if num_classes > 5:
        expected = top_k_accuracy_score(targets, logits, k=5, labels=np.arange(num_classes))
        assert result["top5"] == pytest.approx(100 * expected)


@given(st.permutations(range(6)), st.integers(0, 1000))
@settings(max_examples=20)
def test_renaming_the_classes_renames_the_result(order, seed):
    rng = np.random.default_rng(seed)
    logits, targets, counts = rng.normal(size=(40, 6)), rng.integers(0, 6, 40), rng.integers(0, 300, 6)
    renamed = metrics(logits[:, order], np.argsort(order)[targets], counts[order])
    original = metrics(logits, targets, counts)
    assert renamed["per_class"] == [original["per_class"][k] for k in order]
    for name in ("top1", "top5", "many", "medium", "few", "harmonic_mean", "ece"):
        assert renamed[name] == pytest.approx(original[name])


def test_equal_logits_earn_no_top_k():
    targets = np.arange(10)
    assert top_k_accuracy(np.zeros((10, 10)), targets, 1) == pytest.approx(0.1)
    assert top_k_accuracy(np.zeros((10, 10)), targets, 5) == pytest.approx(0.5)


def test_torch_tensors_and_never_predicted_classes_are_fine():
    logits = torch.tensor([[0.1, -torch.inf, 2.0], [3.0, -torch.inf, 1.0]])
    result = metrics(logits, torch.tensor([2, 1]), torch.tensor([30, 20, 10]))
    assert result["per_class"] == [None, 0, 100]


def test_class_accuracies_mark_missing_classes():
    np.testing.assert_array_equal(class_accuracies([0, 1, 1], [0, 0, 1], 3), [0.5, 1, np.nan])


def test_confusion_counts_true_by_predicted():
    matrix = confusion_matrix(one_hot([0, 2, 2, 1], 4), [0, 0, 2, 1])
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("logits", "targets", "counts", "message"),
    [
        (np.zeros((2, 3)), [0], [1, 1, 1], r"targets \(N,\)"),
        (np.zeros(3), [0, 1, 2], [1, 1, 1], r"logits must be \(N, C\)"),
        (np.zeros((0, 3)), [], [1, 1, 1], "at least 1"),
        (np.zeros((1, 3)), [3], [1, 1, 1], r"integers in 0\.\.2"),
        (np.zeros((1, 3)), [-1], [1, 1, 1], r"integers in 0\.\.2"),
        (np.zeros((1, 3)), [0.5], [1, 1, 1], r"integers in 0\.\.2"),
        (np.full((1, 3), np.nan), [0], [1, 1, 1], "has training diverged"),
        (np.array([[0, np.nan, 0]]), [0], [1, 1, 1], "has training diverged"),
        (np.array([[0, np.inf, 0]]), [0], [1, 1, 1], "has training diverged"),
        (np.zeros((1, 3)), [0], [1, 1], "one count per class, got 2 for 3 classes"),
    ],
)
def test_wrong_input_is_refused(logits, targets, counts, message):
    with pytest.raises(ValueError, match=message):
        metrics(logits, targets, counts)
