import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.evaluation import answering_expert, expert_agreement, expert_assignment, experts_used, metrics


def one_hot(predictions, classes=6):
    return np.eye(classes)[np.asarray(predictions)]


def test_a_case_by_hand():
    targets = [0, 1, 2, 3]
    experts = np.stack([one_hot([0, 1, 0, 0]), one_hot([0, 1, 2, 4]), one_hot([1, 1, 2, 4])])
    report = expert_agreement(experts, targets)
    assert report["images"] == 4
    assert report["average"]["correct"] == 3  # 0, 1, 2; the last image is a 4 by majority
    assert [e["correct"] for e in report["experts"]] == [2, 3, 2]
    assert [e["top1"] for e in report["experts"]] == [50, 75, 50]
    assert [e["right_average_wrong"] for e in report["experts"]] == [0, 0, 0]
    assert [e["wrong_average_right"] for e in report["experts"]] == [1, 0, 1]
    assert [e["average_gain"] for e in report["experts"]] == [25, 0, 25]
    assert report["mean_expert_top1"] == pytest.approx(175 / 3)
    assert report["best_expert_top1"] == 75
    assert report["disagreement"] == [[0, 0.5, 0.75], [0.5, 0, 0.25], [0.75, 0.25, 0]]
    assert report["mean_disagreement"] == pytest.approx(0.5)
    assert report["experts"][0]["per_class"] == [100, 100, 0, 0, None, None]
    # Errors 0011, 0001, 1001.
    errors = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1]])
    np.testing.assert_allclose(report["error_correlation"], np.corrcoef(errors), atol=1e-12)


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_the_gain_is_the_difference_of_the_two_counts(experts, images, classes, seed):
    stream = np.random.RandomState(seed)
    logits, targets = stream.randn(experts, images, classes), stream.randint(classes, size=images)
    report = expert_agreement(logits, targets)
    json.dumps(report, allow_nan=False)
    whole = metrics(logits.mean(0), targets, np.full(classes, 10))
    assert report["average"]["top1"] == pytest.approx(whole["top1"])
    assert report["average"]["per_class"] == pytest.approx(whole["per_class"])
    for expert in report["experts"]:
        gain = 100 * (expert["wrong_average_right"] - expert["right_average_wrong"]) / images
        assert expert["average_gain"] == pytest.approx(gain)
        assert expert["top1"] + gain == pytest.approx(report["average"]["top1"])
        assert (
            expert["correct"] + expert["wrong_average_right"] - expert["right_average_wrong"]
            == (report["average"]["correct"])
        )
    disagreement = np.array(report["disagreement"])
    assert (disagreement == disagreement.T).all()
    assert not disagreement.diagonal().any()


def test_the_talks_arithmetic():
    """Expert 1 of the talk: 82.73 with 237 images lost and 478 won of 10,000 gives 85.14."""
    right = np.zeros((2, 10_000), bool)
    right[:, : 8273 - 237] = True
    right[0, 8273 - 237 : 8273] = True
    right[1, 8273 : 8273 + 478] = True
    targets = np.zeros(10_000, int)
    expert, average = (one_hot(np.where(r, 0, 1)) for r in right)
    report = expert_agreement(expert[None], targets, average)
    (first,) = report["experts"]
    assert (first["right_average_wrong"], first["wrong_average_right"]) == (237, 478)
    assert first["average_gain"] == pytest.approx(2.41)
    assert first["top1"] == pytest.approx(82.73)
    assert report["average"]["top1"] == pytest.approx(85.14)


def test_identical_experts_agree_in_everything():
    logits = np.repeat(np.random.RandomState(0).randn(1, 50, 6), 3, 0)
    report = expert_agreement(logits, np.arange(50) % 6)
    assert report["mean_disagreement"] == 0
    assert report["mean_error_correlation"] == pytest.approx(1)
    assert report["experts"][0] == report["experts"][2]


def test_what_is_undefined_is_none():
    report = expert_agreement(one_hot([0, 1], 2)[None], [0, 1])
    assert report["mean_disagreement"] is None
    assert report["mean_error_correlation"] is None
    assert report["error_correlation"] == [[None]]
    assert report["average"]["top5"] is None


@pytest.mark.parametrize(
    ("logits", "average", "reason"),
    [
        (np.zeros((4, 5)), None, "E, N, C"),
        (np.zeros((0, 4, 5)), None, "at least 1"),
        (np.zeros((2, 4, 5)), np.zeros((4, 6)), "average_logits"),
        (np.full((2, 4, 5), np.nan), np.zeros((4, 5)), "diverged"),
    ],
)
def test_refusals(logits, average, reason):
    with pytest.raises(ValueError, match=reason):
        expert_agreement(logits, [0, 1, 2, 3], average)


def routed(experts=3, images=60, classes=6):
    """Random logits of experts of which each image asked some in a row, and the mean of those."""
    rng = np.random.default_rng(0)
    logits, used = rng.standard_normal((experts, images, classes)), rng.integers(1, experts + 1, images)
    logits[np.arange(experts)[:, None] >= used] = np.nan
    return logits, rng.integers(classes, size=images), used


def test_how_far_images_went_through_the_experts():
    logits, targets, used = routed()
    np.testing.assert_array_equal(experts_used(logits), used)
    answer = np.nanmean(logits, 0)
    report = expert_assignment(logits, targets, answer, [100, 250, 400])
    assert report["experts_used"] == pytest.approx(used.mean())
    assert report["gflops"] == pytest.approx(np.array([100, 250, 400])[used - 1].mean() / 1e9)
    assert report["gflops_of_all"] == pytest.approx(400 / 1e9)
    for number, row in enumerate(report["by_experts"], 1):
        at = used == number
        assert row["share"] == pytest.approx(100 * at.mean())
        assert row["top1"] == pytest.approx(100 * (answer.argmax(1) == targets)[at].mean())
    json.dumps(report, allow_nan=False)


def test_a_number_of_experts_at_which_no_image_stopped_has_no_accuracy():
    logits, targets, _ = routed()
    logits[1:] = np.nan
    report = expert_assignment(logits, targets, logits[0], [1, 2, 3])
    assert [row["share"] for row in report["by_experts"]] == [100, 0, 0]
    assert [row["top1"] for row in report["by_experts"]][1:] == [None, None]


def test_what_is_no_assignment_is_refused():
    logits, targets, _ = routed()
    answer = np.nanmean(logits, 0)
    with pytest.raises(ValueError, match="do not fit"):
        expert_assignment(logits, targets, answer, [1, 2])
    with pytest.raises(ValueError, match="do not fit"):
        expert_assignment(logits[:, :5], targets, answer, [1, 2, 3])
    with pytest.raises(ValueError, match=r"must be \(E, N, C\)"):
        experts_used(answer)
    diverged = np.full_like(logits, np.nan)
    with pytest.raises(ValueError, match="diverged"):
        expert_assignment(diverged, targets, diverged[0], [1, 2, 3])


def test_the_expert_who_answers_alone_is_found_and_routers_are_no_such():
    logits = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert answering_expert(logits, logits[1]) == 1
    assert answering_expert(logits, logits.mean(0)) is None
    logits[1] = np.nan  # all images stopped at the first
    assert answering_expert(logits, logits[0]) is None
