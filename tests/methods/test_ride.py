import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import longtail
from longtail.augment import Normalize, RandomRotation
from longtail.losses import LDAMLoss, effective_number_weights
from longtail.methods.ride import RIDEObjective, class_temperatures, ride, spread_between_pairs, spread_from_mean
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import CosineHead, LinearHead
from longtail.request import Task, build_recipe, build_run_network, make_config
from longtail.training.budget import Context, budget_for
from longtail.types import Batch

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "experts.json").read_text())["cases"]
CASES = [case for case in GOLDEN if case["method"] == "RIDE stage-1 loss"]
COUNTS = [500, 120, 30, 8, 1]


def array(value):
    """Return a stored array, or the one that a stored numpy expression makes, as float64."""
    if isinstance(value, dict):
        value = eval(value["recipe"], {"numpy": np})
    return torch.tensor(np.array(value), dtype=torch.float64)


def objective_of(case, **changes):
    hyper, counts = case["hyper"], case["inputs"]["class_counts"]
    criterion = LDAMLoss(counts, max_m=hyper["s"] * hyper["max_m"], s=1.0)
    temperatures = class_temperatures(counts, hyper["reweight_factor"])
    if hyper["epoch"] > hyper["reweight_epoch"]:
        criterion = criterion.with_class_weights(effective_number_weights(counts, 0.9999))
    else:
        temperatures = torch.ones_like(temperatures)
    weight = -hyper["additional_diversity_factor"]
    options = {"diversity": weight, "form": "collaborative" if weight == 0 else "code"}
    return RIDEObjective(SupervisedObjective(criterion), temperatures, **{**options, **changes})


def expert_logits(case):
    names = [name for name in ("e1", "e2", "e3") if name in case["inputs"]]
    return torch.stack([array(case["inputs"][name]) for name in names]).requires_grad_()


def labelled(targets):
    return Batch(torch.empty(len(targets), 0), torch.as_tensor(targets), torch.arange(len(targets)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_value_and_gradients_are_those_of_the_published_code(case):
    logits = expert_logits(case)
    value = objective_of(case).loss(logits, labelled(case["inputs"]["targets"]))
    value.backward()
    tolerance = 1e-9 * max(1.0, abs(case["output"]["loss"]))
    assert value.item() == pytest.approx(case["output"]["loss"], rel=0, abs=tolerance)
    for number, grad in enumerate(logits.grad, 1):
        torch.testing.assert_close(grad, array(case["output"][f"grad_e{number}"]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if "variants_not_in_code" in c], ids=lambda case: case["id"])
def test_without_diversity_the_individual_losses_stay(case):
    value = objective_of(case, form="code").loss(expert_logits(case), labelled(case["inputs"]["targets"]))
    stored = case["variants_not_in_code"]["individual losses kept at lambda=0"]
    assert value.item() == pytest.approx(stored, rel=1e-9)


def test_all_stored_cases_are_used():
    assert len(CASES) == 10


def naive_divergence(p, q):
    return float((p * (p.log() - q.log())).sum(-1).mean())


def test_spread_between_pairs_is_the_papers_sum():
    logits = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    temperatures = class_temperatures(COUNTS, 0.05, "paper")
    p = (logits / temperatures).softmax(-1)
    pairs = [naive_divergence(p[e], p[j]) for e in range(3) for j in range(3) if j != e]
    assert spread_between_pairs(logits, temperatures).item() == pytest.approx(sum(pairs) / 2)
    assert torch.autograd.gradcheck(lambda z: spread_between_pairs(z, temperatures), logits.requires_grad_())


@pytest.mark.parametrize("spread", [spread_from_mean, spread_between_pairs])
@pytest.mark.parametrize("experts", [1, 3])
def test_identical_experts_have_no_spread_and_no_nan(spread, experts):
    logits = (30 * torch.randn(1, 4, 5)).expand(experts, -1, -1).clone().requires_grad_()
    value = spread(logits, torch.ones(5))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() < 1e-5


def test_temperatures_follow_the_class_frequencies():
    code, paper = class_temperatures(COUNTS, 0.05), class_temperatures(COUNTS, 0.05, "paper")
    shares = torch.tensor(COUNTS, dtype=torch.float64) * 5 / sum(COUNTS)
    weights = 0.05 * shares + 0.95
    torch.testing.assert_close(code, weights / weights.max())
    torch.testing.assert_close(paper, weights + 1 - weights.max())
    for temperatures in (code, paper):
        assert temperatures.max().item() == pytest.approx(1)
        assert (temperatures.diff() < 0).all()
    assert torch.equal(class_temperatures(COUNTS, 0.0), torch.ones(5, dtype=torch.float64))


def test_impossible_temperatures_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        class_temperatures(COUNTS, 1.0)
    with pytest.raises(ValueError, match="too large"):
        class_temperatures(COUNTS, 0.9, "paper")
    assert class_temperatures(COUNTS, 0.9).min() > 0


def recipe_of(digits, protocol="quick", dataset=None, **options):
    data = digits if dataset is None else copy.copy(digits)
    if dataset is not None:
        object.__setattr__(data, "name", dataset)
    config = make_config(
        data,
        "ride",
        protocol=protocol,
        seed=0,
        backbone="small",
        precision="fp32",
        eval_every=None,
        options={"epochs": 10, **options},
    )
    task = Task.of(data)
    recipe = build_recipe(config, task)
    return recipe, build_run_network(config, task, recipe)


def test_weights_and_temperatures_set_in_together(digits):
    early, late = recipe_of(digits)[0].stages
    assert (early.epochs, late.epochs) == (8, 2)
    assert early.objective.objective.criterion.class_weights is None
    assert torch.equal(early.objective.temperatures, torch.ones(10, dtype=torch.float64))
    assert late.objective.objective.criterion.class_weights is not None
    torch.testing.assert_close(late.objective.temperatures, class_temperatures(digits.class_counts, 0.05))


def test_published_settings_hold_under_published_only(digits):
    stage = recipe_of(digits, "published", "cifar100")[0].stages[0]
    assert (stage.optimizer.weight_decay, stage.optimizer.nesterov) == (5e-4, True)
    assert isinstance(stage.augment.transforms[-1], Normalize)
    assert stage.augment.transforms[-2] == RandomRotation(15)
    common = recipe_of(digits, "common", "cifar100")[0].stages[0]
    assert not common.optimizer.nesterov
    assert not any(isinstance(t, RandomRotation) for t in common.augment.transforms)


def test_given_options_go_before_the_published_ones(digits):
    stage = recipe_of(digits, "published", "cifar100", weight_decay=1e-3)[0].stages[0]
    assert (stage.optimizer.weight_decay, stage.optimizer.nesterov) == (1e-3, True)


def test_mixed_targets_are_mixed_losses(digits):
    recipe, network = recipe_of(digits)
    network.eval()
    objective = recipe.stages[-1].objective
    images, targets, other = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 9]), torch.tensor([3, 3, 3, 3])
    plain = Batch(images, targets, torch.arange(4))
    all_first = Batch(images, targets, torch.arange(4), other, torch.ones(4))
    value = objective(network, (plain,), None)
    torch.testing.assert_close(objective(network, (all_first,), None), value)


def test_one_expert_learns_what_ldam_learns():
    cosines, batch = torch.rand(6, len(COUNTS), dtype=torch.float64) * 2 - 1, labelled([0, 0, 1, 2, 3, 4])
    plain = SupervisedObjective(LDAMLoss(COUNTS)).loss(cosines, batch)
    criterion = LDAMLoss(COUNTS, max_m=15.0, s=1.0)  # the scale is part of RIDE's network
    one = RIDEObjective(SupervisedObjective(criterion), class_temperatures(COUNTS, 0.05)).loss(
        30 * cosines[None], batch
    )
    torch.testing.assert_close(one, plain)


def test_the_sign_of_the_diversity_may_be_turned():
    """Users of the official code measured that it does not matter; the row is among the published ones."""
    logits, batch = torch.randn(3, 4, 5, dtype=torch.float64), labelled([0, 1, 2, 4])
    losses = [
        RIDEObjective(SupervisedObjective(LDAMLoss(COUNTS)), torch.ones(5), diversity=sign * 0.45).loss(logits, batch)
        for sign in (-1, 0, 1)
    ]
    torch.testing.assert_close(losses[0] - losses[1], losses[1] - losses[2])
    assert losses[0] > losses[1]


@pytest.mark.parametrize(
    ("protocol", "dataset", "diversity", "gamma"),
    [
        ("published", "cifar100", 0.45, 0.05),
        ("published", "imagenet-lt", 0.2, 0.02),
        ("published", "inat18", 0.2, 0.015),
        ("common", "imagenet-lt", 0.45, 0.05),
    ],
)
def test_diversity_is_that_of_the_authors_configuration_of_the_set(protocol, dataset, diversity, gamma, digits):
    plain = Task.of(digits).plain_transforms()
    context = Context((500, 50, 5), protocol, budget_for(dataset, protocol), plain, plain, dataset=dataset)
    objective = ride(context).stages[-1].objective
    assert objective.diversity == diversity
    torch.testing.assert_close(objective.temperatures, class_temperatures((500, 50, 5), gamma))
    assert ride(context, diversity=0.1, gamma=0.0).stages[-1].objective.diversity == 0.1


def test_the_classifier_may_be_linear(digits):
    recipe, network = recipe_of(digits, classifier="linear")
    assert all(isinstance(head, LinearHead) for head in network.head.heads)
    assert network.head.scale == 1
    features = torch.randn(3, 2, network.num_features)
    own = network.head.heads[1]
    torch.testing.assert_close(network.head(features)[1], features[1] @ own.weight.T + own.bias)
    assert recipe.classifier is not None
    assert isinstance(recipe_of(digits)[1].head.heads[0], CosineHead)


@pytest.mark.parametrize("options", [{"experts": 0}, {"diversity": float("nan")}, {"s": 0.0}, {"gamma": 1.0}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError):
        recipe_of(digits, **options)
