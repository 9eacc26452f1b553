"""ResLT: the loss against the published code and the formula, groups of classes, and what makes it plain training."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import recipe_of

import longtail
from longtail.methods.class_groups import NestedObjective, nested_classes, usual_groups
from longtail.methods.reslt import SumBranches, beta_for, residual_loss
from longtail.types import Batch

GOLDEN = Path(__file__).parents[1] / "golden" / "experts.json"
CASES = [case for case in json.loads(GOLDEN.read_text())["cases"] if case["method"] == "ResLT loss"]
COUNTS = [50, 20, 8, 3, 1]


def array(value):
    """Return a stored array, or the one that a stored numpy expression makes, as float64."""
    if isinstance(value, dict):
        value = eval(value["recipe"], {"numpy": np})
    return torch.tensor(np.array(value), dtype=torch.float64)


def random_logits(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, size, len(COUNTS), dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_value_and_gradients_are_those_of_the_published_code(case):
    inputs, hyper, output = case["inputs"], case["hyper"], case["output"]
    counts = inputs["class_counts"]
    classes = nested_classes(counts, hyper["medium_from_class"], len(counts) - hyper["tail_from_class"])
    logits = torch.stack([array(inputs[name]) for name in ("e1", "e2", "e3")]).requires_grad_()
    value = residual_loss(logits, torch.tensor(inputs["targets"]), classes, beta=hyper["beta"])
    value.backward()
    assert value.item() == pytest.approx(output["loss"], abs=1e-9)
    for number, grad in enumerate(logits.grad, 1):
        torch.testing.assert_close(grad, array(output[f"grad_e{number}"]), rtol=0, atol=1e-9)


def test_a_case_is_stored():
    assert len(CASES) == 1


def test_the_loss_is_the_formula():
    logits, targets = random_logits(), torch.tensor([0, 0, 1, 2, 4, 4])
    classes = nested_classes(COUNTS, 2, 1)
    learnt = [{0, 1, 2, 3, 4}, {2, 3, 4}, {4}]
    pairs = [(k, i, y) for k in range(3) for i, y in enumerate(targets.tolist()) if y in learnt[k]]
    own = [-(logits[k, i].softmax(0)[y] + 1e-7).log() for k, i, y in pairs]
    assert len(own) == 6 + 3 + 2
    fused = torch.nn.functional.cross_entropy(logits.sum(0), targets)
    expected = 0.9 * sum(own) / len(own) + 0.1 * fused
    torch.testing.assert_close(residual_loss(logits, targets, classes, beta=0.9), expected)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: residual_loss(z, targets, classes, beta=0.9), logits)


def test_beta_zero_is_cross_entropy_of_the_sum():
    logits, targets = random_logits(), torch.tensor([0, 0, 1, 2, 4, 4])
    value = residual_loss(logits, targets, nested_classes(COUNTS, 2, 1), beta=0.0)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(SumBranches()(logits), targets))


def test_without_medium_and_tail_classes_the_first_branch_learns_alone():
    """One branch and beta = 1 are plain cross-entropy of that branch, but for the floor inside the logarithm."""
    logits, targets = random_logits().requires_grad_(), torch.tensor([0, 0, 1, 2, 4, 4])
    value = residual_loss(logits, targets, nested_classes(COUNTS, 5, 0), beta=1.0)
    plain = torch.nn.functional.cross_entropy(logits[0], targets)
    torch.testing.assert_close(value, plain, rtol=0, atol=1e-5)
    value.backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1:].abs().sum() == 0


@pytest.mark.parametrize("targets", [[0, 0, 1, 1, 0, 0], [4, 4, 4, 4, 4, 4]])
def test_a_batch_without_a_group_is_finite(targets):
    logits = (50 * random_logits()).float().requires_grad_()
    value = residual_loss(logits, torch.tensor(targets), nested_classes(COUNTS, 2, 2), beta=0.5)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_groups_follow_the_counts_and_not_the_labels():
    classes = nested_classes([3, 50, 1, 20, 8], 2, 1)
    assert classes.tolist() == [[True] * 5, [True, False, True, False, True], [False, False, True, False, False]]
    tied = nested_classes([5, 5, 5, 5], 1, 1)
    assert tied.tolist() == [[True] * 4, [False, True, True, True], [False, False, False, True]]


def test_the_authors_groups_and_weights():
    assert usual_groups(10) == (2, 6)
    assert usual_groups(100) == (35, 30)
    assert beta_for((500, 5)) == beta_for((5000, 50, 50)) == pytest.approx(0.998)
    assert beta_for((50,) * 99 + (500,)) == pytest.approx(0.72)
    assert beta_for((500,) * 50 + (10,) * 50) == pytest.approx(0.99)
    assert beta_for((500,) * 99 + (1, 0)) == pytest.approx(0.995)
    assert 0.99 < beta_for((700,) * 99 + (10,)) < 0.995


def test_mixed_labels_are_weighted_members():
    logits, lam = random_logits(2), torch.tensor([0.25, 1.0], dtype=torch.float64)
    targets, other = torch.tensor([0, 1]), torch.tensor([4, 3])
    objective = NestedObjective(partial(residual_loss, beta=1.0), nested_classes(COUNTS, 2, 1))
    batch = Batch(torch.empty(2, 0), targets, torch.arange(2), other, lam)
    # Branch 1 learns both images with both labels, branch 2 the first with 4, branch 3 too; image 2 is all label 1.
    nll = [-(p + 1e-7).log() for p in logits.softmax(-1)]
    total = 0.25 * nll[0][0, 0] + 0.75 * nll[0][0, 4] + nll[0][1, 1] + 0.75 * (nll[1][0, 4] + nll[2][0, 4])
    torch.testing.assert_close(objective.loss(logits, batch), total / (2 + 0.75 + 0.75))


def test_published_settings(digits, cifar_like):
    stage = recipe_of("reslt", cifar_like, "published").stages[0]
    assert (stage.optimizer.weight_decay, stage.optimizer.nesterov) == (5e-4, True)
    assert stage.schedule.decay == (0.1, 0.01)
    objective = stage.objective
    assert objective.criterion.keywords["beta"] == pytest.approx(0.995)
    assert objective.classes.sum(1).tolist() == [100, 65, 30]
    (_, classifier) = recipe_of("reslt+h2t", cifar_like, "published", p=0).stages
    assert classifier.objective.criterion.keywords["beta"] == 0.3
    given = recipe_of("reslt", digits, head=1, tail=2, beta=0.5).stages[0].objective
    assert (given.criterion.keywords, given.classes.sum(1).tolist()) == ({"beta": 0.5}, [10, 9, 2])


@pytest.mark.parametrize("options", [{"beta": 1.1}, {"beta": -0.1}, {"head": -1}, {"head": 6, "tail": 5}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError):
        recipe_of("reslt", digits, **options)
