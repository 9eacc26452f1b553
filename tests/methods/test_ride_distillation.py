"""RIDE's distillation: the official value, what a teacher may and may not change, and runs that have one."""

from __future__ import annotations

import pytest
import torch
from recipes import recipe_of
from test_contract import same_results
from test_ride import GOLDEN, array, expert_logits, labelled, objective_of

import longtail
from longtail import folder
from longtail.methods import ride
from longtail.methods.inference import AverageExperts
from longtail.methods.ride import RIDEObjective
from longtail.methods.ride_distillation import DistilledExperts
from longtail.networks import Teacher, build_expert_network, build_network
from longtail.training.budget import Context, augmentation_for, budget_for
from longtail.types import Batch, Progress
from reporters import Crash

CASE = next(case for case in GOLDEN if case["id"] == "ride_distill_c100_epoch161")
EXPERTS = {"s": 30, "max_m": 0.5}  # what the other cases spell out
PLAIN = {
    "s": 1,
    "max_m": 0.5,
    "reweight_factor": 0.05,
    "epoch": 1,
    "reweight_epoch": 160,
    "additional_diversity_factor": -0.45,
}


def distilled(repeated):
    hyper = {**CASE["hyper"], **EXPERTS}
    teacher = Teacher(build_network("small", 2, 1))
    return DistilledExperts(
        objective_of({**CASE, "hyper": hyper}),
        teacher,
        weight=hyper["additional_distill_loss_factor"],
        temperature=hyper["distill_temperature"],
        repeated=repeated,
    )


def test_value_and_gradients_are_those_of_the_published_code():
    logits, teacher = expert_logits(CASE), array(CASE["inputs"]["teacher_logits"])
    value = distilled(repeated=True).loss(logits, teacher, labelled(CASE["inputs"]["targets"]))
    value.backward()
    assert value.item() == pytest.approx(CASE["output"]["loss"], rel=1e-9)
    for number, grad in enumerate(logits.grad, 1):
        torch.testing.assert_close(grad, array(CASE["output"][f"grad_e{number}"]), rtol=0, atol=1e-9)


def test_without_repetition_the_value_is_that_of_the_formula():
    logits, teacher = expert_logits(CASE), array(CASE["inputs"]["teacher_logits"])
    value = distilled(repeated=False).loss(logits, teacher, labelled(CASE["inputs"]["targets"]))
    stored = CASE["variants_not_in_code"]["single RIDE + KD (no repetition)"]
    assert value.item() == pytest.approx(stored, rel=1e-9)


def test_a_teacher_that_agrees_adds_nothing_and_stays_as_it_is():
    torch.manual_seed(0)
    network = build_expert_network("small", 5, 1)
    teacher = Teacher(build_expert_network("small", 5, 1, experts=6), AverageExperts())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    experts = objective_of({"hyper": PLAIN, "inputs": {"class_counts": [9, 5, 3, 2, 1]}})
    objective = DistilledExperts(experts, teacher, weight=1.0, temperature=1.5, repeated=False).train()
    images = torch.randn(4, 1, 8, 8)
    batch = Batch(images, torch.tensor([0, 1, 2, 4]), torch.arange(4))
    objective(network, (batch,), Progress(0, 1)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    logits = network(images)
    own = experts.loss(logits, batch)
    torch.testing.assert_close(objective.loss(logits, logits.mean(0), batch), own)


@pytest.fixture
def larger(digits, plain_run, tmp_path):
    return longtail.train(digits, "ride", experts=4, out=tmp_path / "larger", **plain_run)


def test_a_distilled_run_resumes_to_the_same_bits_and_loads_without_its_teacher(
    digits, plain_run, tmp_path, monkeypatch, larger
):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    options = {**plain_run, "teacher": larger.path}
    whole = longtail.train(digits, "ride", out=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "ride", out=tmp_path / "killed", reporter=Crash(14), **options)
    same_results(whole, longtail.train(digits, "ride", out=tmp_path / "killed", resume=True, **options))
    alone = longtail.train(digits, "ride", out=tmp_path / "alone", **plain_run)
    assert whole.history[0]["loss"] > alone.history[0]["loss"]
    (larger.path / "model.safetensors").unlink()
    assert longtail.load(whole.path).logits(digits.test.images[:3]).shape == (3, 10)


def test_the_loop_over_experts_is_repeated_where_the_published_number_comes_from(cifar_like):
    plain = augmentation_for("cifar100", (0.5,) * 3, (0.2,) * 3)
    teacher = Teacher(build_network("small", 100, 3))
    seen = {}
    for protocol in ("published", "common"):
        budget = budget_for("cifar100", protocol)
        context = Context(tuple(cifar_like.class_counts), protocol, budget, plain, plain, teacher=teacher)
        for form in ("code", "paper"):
            stages = ride.ride(context, form=form, gamma=0.02).stages
            assert all(isinstance(stage.objective, DistilledExperts) for stage in stages)
            seen[protocol, form] = stages[0].objective.repeated
    assert seen == {
        ("published", "code"): True,
        ("published", "paper"): False,
        ("common", "code"): False,
        ("common", "paper"): False,
    }
    recipe = recipe_of("ride", cifar_like)
    assert all(isinstance(stage.objective, RIDEObjective) for stage in recipe.stages)


@pytest.mark.parametrize("options", [{"distill_weight": -1.0}, {"distill_temperature": 0.0}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError, match="distill_temperature"):
        recipe_of("ride", digits, **options)
