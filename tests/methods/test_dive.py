import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import lent, recipe_of
from safetensors.torch import load_file
from test_contract import same_results
from torch import nn

import longtail
from longtail import folder
from longtail.losses import BalancedSoftmaxLoss, CrossEntropyLoss, virtual_examples
from longtail.methods.dive import ROWS, DiVEObjective, choose_flatness
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Teacher
from longtail.training.sharing import shared_stages
from longtail.types import Batch, Progress
from reporters import Crash

CASES = [
    case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "experts.json").read_text())["cases"]
    if case["method"].startswith("DiVE")
]
COUNTS = [500, 120, 30, 8, 1]


def array(value):
    """Return a stored array, or the one that a stored numpy expression makes, as float64."""
    if isinstance(value, dict):
        value = eval(value["recipe"], {"numpy": np})
    return torch.tensor(np.array(value), dtype=torch.float64)


def labelled(targets):
    return Batch(torch.empty(len(targets), 0), torch.as_tensor(targets), torch.arange(len(targets)))


def objective_of(student="bsce", counts=COUNTS, **options):
    kind = BalancedSoftmaxLoss if student == "bsce" else CrossEntropyLoss
    return DiVEObjective(SupervisedObjective(kind(counts)), **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_value_and_gradient_are_those_of_the_published_code(case):
    hyper, inputs = case["hyper"], case["inputs"]
    student = {"BalancedSoftmaxCE": "bsce", "CrossEntropy": "ce"}[hyper["base_loss"]]
    options = {name: hyper[name] for name in ("alpha", "temperature", "power")}
    logits = array(inputs["student"]).requires_grad_()
    objective = objective_of(student, inputs["class_counts"], **options)
    value = objective.loss(logits, array(inputs["teacher"]), labelled(inputs["targets"]))
    value.backward()
    assert value.item() == pytest.approx(case["output"]["loss"], rel=1e-9)
    torch.testing.assert_close(logits.grad, array(case["output"]["grad_student"]), rtol=0, atol=1e-9)


def test_all_stored_cases_are_used():
    assert len(CASES) == 3


def drawn():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    return student.requires_grad_(), teacher, labelled([0, 1, 2, 3, 4, 0])


def test_the_method_is_equation_12_of_the_paper():
    student, teacher, batch = drawn()
    value = objective_of(alpha=0.3, temperature=3.0, power=0.5).loss(student, teacher, batch).item()
    log_n, total = np.log(COUNTS), 0.0
    for z, t, y in zip(student.detach().numpy(), teacher.numpy(), batch.targets.tolist(), strict=True):
        balanced = z + log_n
        label_loss = np.log(np.exp(balanced).sum()) - balanced[y]
        soft = np.exp(t / 3) / np.exp(t / 3).sum()
        soft = np.sqrt(soft) / np.sqrt(soft).sum()
        s = np.exp(z / 3) / np.exp(z / 3).sum()
        total += 0.7 * label_loss + 0.3 * 9 * (soft * np.log(soft / s)).sum()
    assert value == pytest.approx(total / 6, rel=1e-12)


def gradient(objective, teacher, batch):
    student, _, _ = drawn()
    objective.loss(student, teacher, batch).backward()
    return student.grad


def test_rows_4_and_5_differ_by_a_constant_only():
    """Equations 7 to 10: without flattening, (1 - a) CE + a KL is cross-entropy against the mix, less a constant."""
    _, teacher, batch = drawn()
    four, five = (
        objective_of(row.student, temperature=row.temperature, power=row.power, target=row.target)
        for row in (ROWS[4], ROWS[5])
    )
    torch.testing.assert_close(gradient(four, teacher, batch), gradient(five, teacher, batch))


def test_a_flattened_mix_flattens_the_label_too():
    student, teacher, batch = drawn()
    teacher = torch.zeros_like(teacher)  # t is uniform, so the mix is 0.6 for the label and 0.1 for each other class
    objective = objective_of("ce", temperature=3.0, power=0.5, target="mixed")
    soft = torch.full((6, 5), 0.1, dtype=torch.float64).scatter(1, batch.targets[:, None], 0.6) ** (1 / 6)
    soft /= soft.sum(1, keepdim=True)
    s = (student / 3).softmax(1)
    expected = 9 * (soft * (soft / s).log()).sum(1).mean()
    torch.testing.assert_close(objective.loss(student, teacher, batch), expected)


def test_mixed_images_have_mixed_labels():
    _, teacher, batch = drawn()
    other = batch.targets.flip(0)
    lam = torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0, 1.0])
    mixed = Batch(batch.images, batch.targets, batch.indices, other, lam)
    for target in ("teacher", "mixed"):
        objective = objective_of("ce", temperature=1.0, power=1.0, target=target)
        both = [gradient(objective, teacher, b) for b in (batch, labelled(other))]
        share = lam.double()[:, None]
        torch.testing.assert_close(gradient(objective, teacher, mixed), share * both[0] + (1 - share) * both[1])


def test_no_teacher_is_asked_where_it_does_not_count(digits):
    network = nn.Linear(4, 5)
    objective = objective_of(alpha=0.0)  # has no teacher to ask
    images, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 4, 0])
    batch = Batch(images, targets, torch.arange(6))
    expected = BalancedSoftmaxLoss(COUNTS)(network(images), targets)
    assert torch.equal(objective(network, (batch,), Progress(0, 1)), expected)


def logits_of_a_biased_teacher(strength):
    """Return logits of 300 images of three classes, unsure between the image's class and the largest one."""
    targets = torch.tensor([0] * 200 + [1] * 80 + [2] * 20)
    logits = strength * torch.eye(3, dtype=torch.float64)[targets]
    logits[:, 0] += strength * 0.7
    return logits


def test_the_rule_takes_the_first_temperature_at_which_the_tail_has_as_many():
    # Balanced already: V = (1, 1, 1) times 100 whatever the temperature.
    assert choose_flatness(torch.zeros(300, 3), [200, 80, 20]) == (1.0, 1.0)
    logits = torch.tensor([[2.0, 1.0, 0.0]] * 2 + [[0.0, 1.0, 2.5]] * 1, dtype=torch.float64)
    temperature, power = choose_flatness(logits, [2, 1, 0])
    examples = [virtual_examples(logits, t) for t in range(1, 21)]
    first = next((t for t, v in enumerate(examples, 1) if v[2] >= v[0]), 20)
    assert temperature / power == first
    assert power == (0.5 if first >= 4 else 1.0)


def test_a_tail_that_never_gets_as_many_gets_the_highest_temperature():
    assert choose_flatness(logits_of_a_biased_teacher(5.0), [200, 80, 20]) == (10.0, 0.5)


def test_the_rule_looks_at_the_sizes_and_not_at_the_order_of_classes():
    logits = torch.zeros(10, 3)
    logits[:, 0] = 0.1
    assert choose_flatness(logits, [5, 4, 1]) == (10.0, 0.5)
    assert choose_flatness(logits, [1, 4, 5]) == (1.0, 1.0)


@pytest.mark.parametrize("row", ROWS)
def test_the_rows_of_table_6_by_number(row, digits):
    objective = recipe_of("dive", digits, row=row).stages[1].objective
    known = ROWS[row]
    assert (objective.target, float(objective.temperature), float(objective.power)) == known[1:]
    assert isinstance(objective.base.criterion, BalancedSoftmaxLoss if known.student == "bsce" else CrossEntropyLoss)


def test_published_settings_are_those_of_bbn(cifar_like):
    recipe = recipe_of("dive", cifar_like, "published")
    for stage in recipe.stages:
        assert stage.schedule.milestones == (120, 160)
        assert stage.schedule.decay == (1e-2, 1e-4)
        assert stage.optimizer.nesterov
    assert lent("dive", "bsce", cifar_like, "common") == 1
    assert lent("dive", "bsce", cifar_like, "published") == 0  # which has the recipe of LDAM-DRW


def test_the_teacher_of_figure_1_is_cross_entropy(digits):
    ours, plain = recipe_of("dive", digits, teacher_loss="ce"), recipe_of("ce", digits)
    assert shared_stages(ours, plain, "small") == 1
    assert shared_stages(recipe_of("dive", digits), plain, "small") == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"row": 7}, "row is 7; Table 6 has the rows 1, 2, 3, 4, 5, 6"),
        ({"alpha": 1.5}, "between 0 and 1"),
        ({"temperature": 0}, "above 0"),
        ({"power": -0.5}, "above 0"),
        ({"row": 2, "student": "bsce"}, "no loss of them to be 'bsce'"),
        ({"flatness": "rule", "power": 1.0}, "chooses temperature and power itself"),
        ({"flatness": "rule", "row": 5}, "flattens the labels with them"),
        ({"student": "focal"}, "must be one of bsce, ce"),
    ],
)
def test_wrong_options_are_refused(options, reason, digits):
    with pytest.raises(longtail.UsageError, match=reason):
        recipe_of("dive", digits, **options)


def test_given_flatness_is_no_choice(digits):
    assert recipe_of("dive", digits).stages[1].objective.chosen() == {}


def tensors(run):
    return load_file(run.path / "model.safetensors")


def test_without_weight_the_student_of_any_teacher_is_its_base_method(digits, plain_run, tmp_path):
    teacher = longtail.train(digits, "ride", out=tmp_path / "ride", **plain_run)
    base = longtail.train(digits, "bsce", out=tmp_path / "bsce", **plain_run)
    student = longtail.train(digits, "dive", out=tmp_path / "dive", teacher=teacher.path, alpha=0.0, **plain_run)
    assert all(torch.equal(value, tensors(base)[name]) for name, value in tensors(student).items())
    other = longtail.train(digits, "dive", out=tmp_path / "other", teacher=teacher.path, **plain_run)
    assert not all(torch.equal(value, tensors(base)[name]) for name, value in tensors(other).items())


def test_the_teacher_is_the_first_stage_and_a_finished_run_stands_in(digits, plain_run, tmp_path):
    base = longtail.train(digits, "bsce", out=tmp_path / "bsce", **plain_run)
    whole = longtail.train(digits, "dive", out=tmp_path / "whole", flatness="rule", **plain_run)
    short = longtail.train(digits, "dive", out=tmp_path / "short", stage1=base.path, flatness="rule", **plain_run)
    assert all(torch.equal(value, tensors(short)[name]) for name, value in tensors(whole).items())
    state = torch.load(whole.path / "state.pt", weights_only=True)["objective"]
    prefix = "teacher.network."
    kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    assert all(torch.equal(value, tensors(base)[name]) for name, value in kept.items())
    assert kept.keys() == tensors(base).keys()
    # The rule's choice is part of the state, and follows from the teacher's logits of the training images.
    chosen = choose_flatness(torch.as_tensor(base.logits(digits.train.images)), digits.class_counts)
    assert (float(state["temperature"]), float(state["power"])) == chosen
    # And it is told: with every epoch of the student, and in the result.
    told = dict(zip(("temperature", "power"), chosen, strict=True))
    assert [line.get("chosen") for line in whole.history] == [None] * 3 + [told] * 3
    assert whole.metrics["chosen"] == {"student": told}
    assert "chosen" not in base.metrics


@pytest.mark.parametrize("at", [38, 50])
def test_teacher_and_chosen_flatness_survive_a_kill(at, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    options = {**plain_run, "flatness": "rule"}
    whole = longtail.train(digits, "dive", out=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "dive", out=tmp_path / "run", reporter=Crash(at), **options)
    if at == 50:  # in the student's second epoch
        monkeypatch.setattr(DiVEObjective, "measure", None)  # not looked at again
    same_results(whole, longtail.train(digits, "dive", out=tmp_path / "run", resume=True, **options))


def test_the_average_of_experts_teaches(digits):
    recipe = recipe_of("ride", digits)
    network = recipe.network("small", 10, 1).eval()
    teacher = Teacher(network, recipe.inference)
    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(teacher(images), network(images).mean(0))
