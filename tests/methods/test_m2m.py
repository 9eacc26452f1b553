"""M2m: the translation step by step, who is replaced by whom, and the settings of the official code."""

from __future__ import annotations

import pytest
import torch
from recipes import lent, recipe_of
from torch import nn

import longtail
from longtail.augment import Normalize
from longtail.losses import CrossEntropyLoss
from longtail.methods import m2m
from longtail.methods.m2m import MajorToMinor
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Teacher, build_network
from longtail.sampling import ClassBalancedSampling, DeferredSampling, InstanceSampling
from longtail.types import Batch, Progress

COUNTS = (100, 20, 5)
NORMALIZE = Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


class Linear(nn.Module):
    """Logits W x of flattened images."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


def make(guide=None, counts=COUNTS, **options):
    loss = SupervisedObjective(CrossEntropyLoss(counts))
    return MajorToMinor(loss, counts, NORMALIZE, **{"switch": 0, **options}, guide=guide)


def pictures(n, seed=0):
    return NORMALIZE(torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed)))


def batch_of(targets, seed=0):
    targets = torch.as_tensor(targets)
    return Batch(pictures(len(targets), seed), targets, torch.arange(len(targets)))


def pixels(images):
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (NORMALIZE.mean, NORMALIZE.std))
    return images.double() * std + mean


def test_the_translation_is_gradient_descent_on_pixels(monkeypatch):
    """Against the formula, one image at a time in float64, on pixels of 0..1."""
    torch.manual_seed(0)
    g, f = torch.randn(3, 12), torch.randn(3, 12)
    objective = make(Teacher(Linear(g)), lam=0.5)
    monkeypatch.setattr(m2m, "START_RADIUS", 0.0)
    images, sources, targets = pictures(4), torch.tensor([0, 0, 1, 0]), torch.tensor([2, 1, 2, 2])
    moved, sure = objective.translate(Linear(f), images, sources, targets)
    for row in range(4):
        p = pixels(images[row : row + 1])
        for _ in range(10):
            p = p.detach().requires_grad_()
            x = (
                (p - pixels(torch.zeros(1, 3, 1, 1))) / torch.tensor(NORMALIZE.std).double().view(1, 3, 1, 1)
            ).flatten()
            value = -(g.double() @ x).log_softmax(0)[targets[row]] + 0.5 * (f.double() @ x)[sources[row]]
            (gradient,) = torch.autograd.grad(value, p)
            p = (p - 0.1 * gradient / gradient.norm()).clamp(0, 1)
        torch.testing.assert_close(pixels(moved[row : row + 1]), p.detach(), atol=1e-5, rtol=0)
    confident = moved.flatten(1) @ g.T
    assert torch.equal(sure, confident.softmax(1)[torch.arange(4), targets] >= 0.9)


def test_the_learner_is_in_evaluation_mode_meanwhile_and_nothing_of_it_moves():
    torch.manual_seed(0)
    network = build_network("small", 3, 3).train()
    objective = make(Teacher(build_network("small", 3, 3)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = NORMALIZE(torch.rand(4, 3, 8, 8))
    moved, _ = objective.translate(network, images, torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long))
    assert network.training
    assert network.backbone.training
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not moved.requires_grad
    back = pixels(moved)
    assert back.min() > -1e-6
    assert back.max() < 1 + 1e-6
    # Ten steps of 0.1 and a start of 0.5 sqrt(3 / 4) at the most.
    assert (back - pixels(images)).flatten(1).norm(dim=1).max() <= 1 + 0.5 * 0.75**0.5 + 1e-5


def test_chances_are_the_paper_s():
    objective = make(beta=0.999)
    chances = objective.chances(torch.tensor([100.0, 20.0, 5.0]))
    expected = [[0, 0, 0], [1 - 0.999**80, 0, 0], [1 - 0.999**95, 1 - 0.999**15, 0]]
    torch.testing.assert_close(chances, torch.tensor(expected))


def test_only_images_of_smaller_classes_are_replaced_and_only_by_those_of_larger_ones(monkeypatch):
    objective = make(beta=0.0)
    seen = []

    def translate(network, images, sources, targets):
        seen.extend(zip(sources.tolist(), targets.tolist(), strict=True))
        return images + 10, torch.ones(len(images), dtype=torch.bool)

    monkeypatch.setattr(objective, "translate", translate)
    batch = batch_of([0, 0, 1, 1, 2, 2, 2, 2])
    replaced = torch.zeros(8)
    for _ in range(200):
        replaced += (objective.rebalanced(nn.Identity(), batch) != batch.images).flatten(1).any(1)
    assert all(COUNTS[source] > COUNTS[target] for source, target in seen)
    assert replaced[:2].sum() == 0
    share = replaced / 200  # 1 - n_k / n_1
    assert (share[2:4] - 0.8).abs().max() < 0.12
    assert (share[4:] - 0.95).abs().max() < 0.08


def test_unsure_images_are_not_taken(monkeypatch):
    objective = make(beta=0.0)
    monkeypatch.setattr(
        objective, "translate", lambda n, images, s, t: (images + 10, torch.zeros(len(images), dtype=torch.bool))
    )
    batch = batch_of([0, 1, 2])
    assert torch.equal(objective.rebalanced(nn.Identity(), batch), batch.images)


@pytest.mark.parametrize(("counts", "targets"), [((9, 9, 9), [0, 1, 2]), (COUNTS, [2, 2, 2]), (COUNTS, [0])])
def test_batches_with_nobody_to_replace_stay_as_they_are(counts, targets):
    batch = batch_of(targets)
    assert make(counts=counts).rebalanced(nn.Identity(), batch) is batch.images


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_before_the_switch_it_is_the_plain_loss_and_after_it_learns(precision):
    torch.manual_seed(0)
    network = build_network("small", 3, 3).train()
    objective = make(Teacher(build_network("small", 3, 3)), switch=2, gamma=0.0, beta=0.0)
    batch = Batch(NORMALIZE(torch.rand(6, 3, 8, 8)), torch.tensor([0, 0, 1, 1, 2, 2]), torch.arange(6))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        early = objective(network, (batch,), Progress(1, 10))
        assert torch.equal(early, objective.objective(network, (batch,), Progress(1, 10)))
        late = objective(network, (batch,), Progress(2, 10))
    assert late != early
    late.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in objective.guide.parameters())


def test_the_recipe_is_that_of_the_official_code(digits):
    recipe = recipe_of("m2m", digits)
    guide, learner = recipe.stages
    assert lent("m2m", "ce", digits) == 1
    assert learner.sampling == (DeferredSampling(InstanceSampling(), ClassBalancedSampling(), 24),)
    assert learner.objective.switch == 24  # of 30
    assert (learner.objective.beta, learner.objective.lam, learner.objective.gamma) == (0.999, 0.5, 0.9)
    assert guide.epochs == learner.epochs == 30
    assert learner.new_network is not None
    assert recipe_of("m2m", digits, loss="ce").stages[1].objective.objective.criterion.class_weights is None


def test_a_finished_run_can_be_the_guide(digits, tmp_path):
    short = {"epochs": 3, "precision": "fp32", "compile": "off"}
    teacher = longtail.train(digits, method="ce", out=tmp_path / "ce", **short)
    run = longtail.train(digits, method="m2m", teacher=teacher.path, out=tmp_path / "m2m", **short)
    assert {record["stage"] for record in run.history} == {"learner"}


@pytest.mark.parametrize("options", [{"beta": 1.1}, {"lam": -1}, {"gamma": 2}, {"start": 1.0}, {"epochs": 2}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError, match=r"m2m|start is|no room for a switch"):
        recipe_of("m2m", digits, **options)
