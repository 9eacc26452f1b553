"""Weights of experts from unlabelled images: against a slow loop, and where the answer is known."""

import math

import pytest
import torch

from longtail.evaluation import ExpertAggregation, combine_experts, prediction_stability


def expert_logits(seed=0, experts=3, images=40, classes=5):
    shape = (experts, images, classes)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_combination_and_stability_are_the_formulas():
    first, second = expert_logits(0, images=6), expert_logits(1, images=6)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    cosines = []
    for i in range(6):
        p, q = (sum(w * z[e, i] for e, w in enumerate(weights)).softmax(0) for z in (first, second))
        cosines.append(float(p @ q / math.sqrt((p @ p) * (q @ q))))
    assert prediction_stability(first, second, weights).item() == pytest.approx(sum(cosines) / 6)
    torch.testing.assert_close(combine_experts(first, torch.full((3,), 1 / 3)), first.mean(0), rtol=1e-6, atol=1e-6)


def test_equal_views_leave_equal_weights():
    learner, logits = ExpertAggregation(3), expert_logits()
    learner.epoch(logits, logits)
    torch.testing.assert_close(learner.weights, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert not learner.stopped


def test_the_stable_expert_wins_and_learning_stops_at_the_floor():
    steady, shaky = 4 * expert_logits(0, 1), 4 * expert_logits(1, 2)
    first, second = torch.cat([steady, shaky]), torch.cat([steady, -shaky])
    learner = ExpertAggregation(3, batch_size=10)
    before = prediction_stability(first, second, learner.weights)
    seen = []
    for _ in range(30):
        learner.epoch(first, second)
        seen.append(learner.weights)
    assert prediction_stability(first, second, learner.weights) > before + 0.1
    assert learner.weights.argmax() == 0
    assert learner.stopped
    assert learner.weights.min() < 0.05
    assert torch.equal(seen[-1], seen[-2])
    assert learner.weights.sum().item() == pytest.approx(1)


def test_one_step_is_nesterov_sgd_on_w():
    """By hand: v = g + wd w, w -= lr (v + momentum v) in the first step."""
    first, second = expert_logits(0), expert_logits(1)
    learner = ExpertAggregation(3, batch_size=40)
    learner.epoch(first, second)
    w = torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True)
    (-prediction_stability(first, second, w.softmax(0))).backward()
    expected = w.detach() - 0.1 * 1.9 * (w.grad + 5e-4 * w.detach())
    torch.testing.assert_close(learner.weights, expected.softmax(0))


@pytest.mark.parametrize("images", [1, 3])
def test_few_images_and_one_expert(images):
    learner = ExpertAggregation(1)
    learner.epoch(expert_logits(0, 1, images), expert_logits(1, 1, images))
    assert learner.weights.tolist() == [1.0]
    many = ExpertAggregation(3)
    many.epoch(expert_logits(0, 3, images), expert_logits(1, 3, images))
    assert torch.isfinite(many.weights).all()


def test_the_seed_decides():
    first, second = expert_logits(0), expert_logits(1)
    results = []
    for seed in (0, 0, 1):
        learner = ExpertAggregation(3, batch_size=7, seed=seed)
        learner.epoch(first, second)
        results.append(learner.weights)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one expert or more, got 0"):
        ExpertAggregation(0)
    for second in (expert_logits(1, images=39), expert_logits(1, experts=2)):
        with pytest.raises(ValueError, match=r"two views \(3, N, C\)"):
            ExpertAggregation(3).epoch(expert_logits(0), second)
