"""SADE: the experts' losses against the published code, and what each expert learns to expect."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import recipe_of

import longtail
from longtail import methods
from longtail.augment import Normalize, RandomRotation
from longtail.losses import balanced_softmax_loss, log_class_counts
from longtail.methods.inference import AverageExperts
from longtail.methods.sade import SADEObjective, expert_shifts, inverted_counts
from longtail.request import Task
from longtail.training.budget import Context, budget_for
from longtail.types import Batch

GOLDEN = Path(__file__).parents[1] / "golden" / "experts.json"
CASES = [case for case in json.loads(GOLDEN.read_text())["cases"] if case["method"].startswith("SADE")]
COUNTS = [50, 20, 8, 3, 1]


def array(value):
    """Return a stored array, or the one that a stored numpy expression makes, as float64."""
    if isinstance(value, dict):
        value = eval(value["recipe"], {"numpy": np})
    return torch.tensor(np.array(value), dtype=torch.float64)


def labelled(targets, **mixed):
    return Batch(torch.empty(len(targets), 0), torch.as_tensor(targets), torch.arange(len(targets)), **mixed)


def random_logits(size=4):
    return torch.randn(3, size, len(COUNTS), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_value_and_gradients_are_those_of_the_published_code(case):
    inputs, output = case["inputs"], case["output"]
    logits = torch.stack([array(inputs[name]) for name in ("e1", "e2", "e3")]).requires_grad_()
    objective = SADEObjective(inputs["class_counts"], case["hyper"]["tau"])
    # Equal counts: the code's order is that of an unstable sort, whose outcome the case holds.
    inverted = array(case["extra"]["inverse_prior"]) + 1e-9
    shifts = expert_shifts(inputs["class_counts"], case["hyper"]["tau"])
    objective.experts[2].criterion.shift.copy_(shifts[1] - case["hyper"]["tau"] * inverted.log())
    value = objective.loss(logits, labelled(inputs["targets"]))
    value.backward()
    assert value.item() == pytest.approx(output["loss"], abs=1e-9)
    for number, grad in enumerate(logits.grad, 1):
        torch.testing.assert_close(grad, array(output[f"grad_e{number}"]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_our_order_of_equal_counts_reads_the_list_backwards(case):
    inputs, output = case["inputs"], case["output"]
    logits = torch.stack([array(inputs[name]) for name in ("e1", "e2", "e3")])
    value = SADEObjective(inputs["class_counts"], case["hyper"]["tau"]).loss(logits, labelled(inputs["targets"]))
    stored = case.get("variants_not_in_code", {}).get("inverse prior = plain reversal of the class list")
    assert value.item() == pytest.approx(output["loss"] if stored is None else stored, abs=1e-9)


def test_all_stored_cases_are_used():
    assert len(CASES) == 2


def test_the_inverted_prior_exchanges_largest_and_smallest():
    assert inverted_counts([3, 50, 1, 20, 8]).tolist() == [20, 1, 50, 3, 8]
    assert inverted_counts(COUNTS).tolist() == COUNTS[::-1]
    assert inverted_counts([9, 9, 9, 2, 2]).sum() == 31
    assert inverted_counts([7, 7]).tolist() == [7, 7]
    assert inverted_counts([4, 0]).tolist() == [0, 4]


def test_each_expert_has_its_own_loss():
    logits, targets = random_logits(), torch.tensor([0, 1, 4, 2])
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    plain = torch.nn.functional.cross_entropy(logits[0], targets)
    balanced = balanced_softmax_loss(logits[1], targets, log_class_counts(COUNTS)).mean()
    third = torch.nn.functional.cross_entropy(logits[2] + prior.log() - 2 * prior.flip(0).log(), targets)
    value = SADEObjective(COUNTS, 2.0).loss(logits, labelled(targets))
    torch.testing.assert_close(value, plain + balanced + third, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 2.0])
def test_equal_counts_are_three_plain_losses(tau):
    logits, targets = random_logits(), torch.tensor([0, 1, 4, 2])
    value = SADEObjective([7] * 5, tau).loss(logits, labelled(targets))
    torch.testing.assert_close(value, sum(torch.nn.functional.cross_entropy(z, targets) for z in logits))


def test_without_tau_the_third_expert_is_the_second():
    shifts = expert_shifts(COUNTS, 0.0)
    assert torch.equal(shifts[1], shifts[2])
    assert not shifts[0].any()


def test_a_class_without_images_is_finite():
    value = SADEObjective([5, 1, 0], 2.0).loss(torch.randn(3, 4, 3), labelled([0, 1, 0, 2]))
    assert torch.isfinite(value)


def test_mixed_labels_are_mixed_losses():
    logits, lam = random_logits(2), torch.tensor([0.25, 0.75], dtype=torch.float64)
    objective = SADEObjective(COUNTS, 2.0)
    mixed = objective.loss(logits, labelled([0, 1], mixed_targets=torch.tensor([4, 4]), lam=lam))
    shifted = (logits + expert_shifts(COUNTS, 2.0)[:, None]).log_softmax(-1)
    own = lam * shifted[:, [0, 1], [0, 1]] + (1 - lam) * shifted[:, [0, 1], [4, 4]]
    torch.testing.assert_close(mixed, -own.mean(1).sum())


def test_network_and_published_settings(digits, cifar_like):
    recipe = recipe_of("sade", cifar_like, "published")
    stage = recipe.stages[0]
    assert (stage.optimizer.weight_decay, stage.optimizer.nesterov) == (5e-4, True)
    assert stage.schedule.decay == (0.1, 0.01)
    assert stage.augment.transforms[-2] == RandomRotation(15)
    assert isinstance(stage.augment.transforms[-1], Normalize)
    assert isinstance(recipe.inference, AverageExperts)
    common = recipe_of("sade", digits).stages[0]
    assert not any(isinstance(t, RandomRotation) for t in common.augment.transforms)
    network = recipe.network("resnet32", 100, 3)
    # The published code's network is RIDE's with three experts: 0.784 million parameters.
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == 0.784


@pytest.mark.parametrize(
    ("name", "dataset", "epochs"),
    [("sade", "imagenet-lt", 180), ("sade", "inat18", 100), ("bbn", "inat18", 180), ("lfme", "imagenet-lt", 90)],
)
def test_budgets_of_large_sets(name, dataset, epochs):
    budget = replace(budget_for(dataset, "published"), **methods.published_budget(name, dataset))
    assert budget.epochs == epochs
    assert budget.lr_schedule().factor(epochs - 1) < 0.02


@pytest.mark.parametrize(
    ("protocol", "dataset", "tau"),
    [("published", "inat18", 1), ("published", "imagenet-lt", 2), ("common", "inat18", 2)],
)
def test_tau_is_that_of_the_authors_configuration_of_the_set(protocol, dataset, tau, digits):
    plain = Task.of(digits).plain_transforms()
    context = Context((500, 50, 5), protocol, budget_for(dataset, protocol), plain, plain, dataset=dataset)
    assert methods.build("sade", context).stages[0].objective.tau == tau
    assert methods.build("sade", context, {"tau": 1.5}).stages[0].objective.tau == 1.5


@pytest.mark.parametrize("options", [{"tau": -1}, {"s": 0}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError):
        recipe_of("sade", digits, **options)
