import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from recipes import recipe_of
from safetensors.torch import load_file
from test_contract import same_results

import longtail
from longtail import folder
from longtail.losses import CrossEntropyLoss, soft_targets
from longtail.methods.self_supervision import PretextHead
from longtail.methods.ssd import DualHead, JointObjective, PickHead, SelfDistillation
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import LearnableScalingHead, LinearHead
from longtail.training.recipe import Shape, enter_structure
from longtail.types import Batch, Progress
from reporters import Crash

COUNTS = [50, 20, 9, 4, 1]
STAGES = {
    "plain": ["train"],
    "I": ["features"],
    "teacher": ["features", "soft labels"],
    "coupled": ["features", "soft labels", "student"],
    "single": ["features", "soft labels", "student"],
    "III-hard": ["features", "soft labels", "student"],
    "III-soft": ["features", "soft labels", "student"],
    "IV-LWS": ["features", "soft labels", "student", "rescaling"],
}
HEADS = {
    "plain": LinearHead,
    "I": PretextHead,
    "teacher": LearnableScalingHead,
    "coupled": LinearHead,
    "single": LinearHead,
    "III-hard": DualHead,
    "III-soft": DualHead,
    "IV-LWS": LearnableScalingHead,
}


def final_network(recipe):
    network = recipe.network("small", 10, 1)
    for stage in recipe.stages:
        network = enter_structure(network, stage, Shape("small", 10, 1))
    return network


@pytest.mark.parametrize("row", STAGES)
def test_the_rows_of_the_papers_tables_by_name(row, digits):
    recipe = recipe_of("ssd", digits, row=row)
    assert [stage.name for stage in recipe.stages] == STAGES[row]
    network = final_network(recipe)
    assert type(network.head) is HEADS[row]
    images = torch.randn(3, 1, 8, 8)
    logits = network(images)
    assert logits.shape == ((2, 3, 10) if row.startswith("III") else (3, 10))
    answer = recipe.inference(logits)
    assert answer.shape == (3, 10)
    if row.startswith("III"):
        head = network.head.hard if row == "III-hard" else network.head.soft
        torch.testing.assert_close(answer, head(network.features(images)))


def test_the_last_phase_scales_the_hard_head(digits):
    recipe = recipe_of("ssd", digits, row="IV-LWS")
    dual = DualHead(64, 10)
    scaled = recipe.stages[-1].new_head(dual)
    assert torch.equal(scaled(torch.eye(64)), dual.hard(torch.eye(64)))  # scales begin at 1
    assert recipe.stages[-1].objective is not recipe.stages[1].objective


def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 6, 5, dtype=torch.float64, generator=generator)
    batch = Batch(torch.empty(6, 0), torch.tensor([0, 1, 2, 3, 4, 0]), torch.arange(6))
    return logits[:2].requires_grad_(), logits[2], batch


def distillation(heads, temperature=2.0):
    return SelfDistillation(SupervisedObjective(CrossEntropyLoss(COUNTS)), temperature=temperature, heads=heads)


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


@pytest.mark.parametrize("heads", ["two", "coupled", "single"])
def test_phase_three_is_the_papers_loss(heads):
    logits, teacher, batch = drawn()
    given = logits if heads == "two" else logits[0]
    value = distillation(heads).loss(given, teacher, batch)
    hard, soft = logits.detach().numpy() if heads == "two" else (logits[0].detach().numpy(),) * 2
    total = 0.0
    for b, y in enumerate(batch.targets.tolist()):
        labels = softmax(teacher[b].numpy() / 2)
        # The paper's cross-entropy, less the entropy of the soft labels.
        total += 4 * -(labels * np.log(softmax(soft[b] / 2))).sum() + 4 * (labels * np.log(labels)).sum()
        total -= 0 if heads == "single" else np.log(softmax(hard[b])[y])
    assert value.item() == pytest.approx(total / 6, rel=1e-12)


def test_the_hard_head_never_sees_soft_labels_nor_the_soft_head_hard_ones():
    logits, teacher, batch = drawn()
    distillation("two").loss(logits, teacher, batch).backward()
    one_hot = torch.eye(5, dtype=torch.float64)[batch.targets]
    torch.testing.assert_close(logits.grad[0], (logits[0].softmax(1) - one_hot).detach() / 6)
    soft = 2 * ((logits[1] / 2).softmax(1) - soft_targets(teacher, 2.0)).detach() / 6
    torch.testing.assert_close(logits.grad[1], soft)


def test_the_soft_label_of_a_uniform_teacher_is_uniform():
    for temperature in (0.5, 2.0, 100.0):
        assert torch.equal(soft_targets(torch.full((4, 5), 7.3), temperature), torch.full((4, 5), 0.2))
    logits, _, batch = drawn()
    distillation("single").loss(logits[0], torch.zeros(6, 5, dtype=torch.float64), batch).backward()
    uniform = 2 * ((logits[0] / 2).softmax(1) - 0.2).detach() / 6
    torch.testing.assert_close(logits.grad[0], uniform)


@pytest.mark.parametrize("task", ["rotation", "instance"])
def test_phase_one_adds_the_two_losses(task, digits):
    stage = recipe_of("ssd", digits, task=task).stages[0]
    objective = stage.objective
    assert isinstance(objective, JointObjective)
    network = recipe_of("ssd", digits, task=task).network("small", 10, 1)
    network.head = stage.new_head(network.head)
    objective.prepare(network, network)
    network.eval()
    image = torch.randn(8, 1, 8, 8)
    batches = (Batch(image, torch.arange(8), torch.arange(8)),) * (1 + len(stage.views))
    supervised = torch.nn.functional.cross_entropy(network(image), torch.arange(8))
    kept = copy.deepcopy(objective.self_supervised)
    torch.manual_seed(0)
    alone = kept(network, batches, Progress(0, 1))
    torch.manual_seed(0)
    both = objective(network, batches, Progress(0, 1))
    torch.testing.assert_close(both, supervised + alone)
    both.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.head.parameters())


def test_the_key_view_changes_colours_and_the_query_view_does_not(digits):
    stage = recipe_of("ssd", digits, task="instance").stages[0]
    assert len(stage.views) == 1
    assert len(stage.views[0].transforms) == len(stage.augment.transforms) + 2


def test_mixing_does_not_go_with_two_views(digits):
    with pytest.raises(longtail.UsageError, match=r"\+mixup mixes images, and stage 'features' compares two views"):
        recipe_of("ssd+mixup", digits, task="instance")
    assert recipe_of("ssd+mixup", digits).stages[0].mixing is not None


@pytest.mark.parametrize("at", [21, 60])  # in the second epoch of a phase: the state of its first is on disk
def test_queue_slow_encoder_and_teacher_survive_a_kill(at, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    options = {**plain_run, "epochs": 2, "task": "instance", "row": "IV-LWS", "stage2_epochs": 2}
    whole = longtail.train(digits, "ssd", out=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "ssd", out=tmp_path / "run", reporter=Crash(at), **options)
    killed = longtail.train(digits, "ssd", out=tmp_path / "run", resume=True, **options)
    same_results(whole, killed)


def tensors(run):
    return load_file(run.path / "model.safetensors")


def test_without_a_task_phase_one_is_cross_entropy(digits, plain_run, tmp_path):
    base = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    options = {**plain_run, "task": "none", "row": "teacher"}
    whole = longtail.train(digits, "ssd", out=tmp_path / "whole", **options)
    short = longtail.train(digits, "ssd", out=tmp_path / "short", stage1=base.path, **options)
    lws = longtail.train(digits, "lws", out=tmp_path / "lws", **plain_run)
    for other in (short, lws):
        assert all(torch.equal(value, tensors(other)[name]) for name, value in tensors(whole).items())


def test_any_run_teaches_and_both_heads_are_on_disk(digits, plain_run, tmp_path):
    teacher = longtail.train(digits, "bsce", out=tmp_path / "bsce", **plain_run)
    run = longtail.train(digits, "ssd", out=tmp_path / "ssd", teacher=teacher.path, **plain_run)
    assert [line["stage"] for line in run.history] == ["student"] * 3
    saved = np.load(run.path / "test_logits.npz")
    np.testing.assert_array_equal(saved["logits"], saved["expert_logits"][1])
    np.testing.assert_array_equal(longtail.load(run.path).logits(digits.test.images), saved["logits"])


@pytest.mark.parametrize("option", [{"task": "none"}, {"form": "code"}, {"stage2_lr": 0.1}, {"cached": True}])
def test_a_given_teacher_leaves_no_phase_to_its_options(option, digits, plain_run, tmp_path):
    teacher = longtail.train(digits, "ce", out=tmp_path / "ce", **{**plain_run, "epochs": 1})
    with pytest.raises(longtail.UsageError, match=r"form is of the task|changes nothing with a teacher given"):
        longtail.train(digits, "ssd", out=tmp_path / "ssd", teacher=teacher.path, **plain_run, **option)


@pytest.mark.parametrize("name", ["ssd", "ce+ssp"])
def test_photographs_are_told_apart_and_small_images_turned(name, digits):
    pictures = replace(digits, name="pictures")
    for data, views in ((digits, 0), (pictures, 1)):
        assert len(recipe_of(name, data).stages[0].views) == views


@pytest.mark.parametrize("row", ["plain", "I", "teacher"])
def test_a_row_without_student_takes_no_teacher(row, digits, plain_run, tmp_path):
    teacher = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    with pytest.raises(longtail.UsageError, match="has no student"):
        longtail.train(digits, "ssd", out=tmp_path / "ssd", teacher=teacher.path, row=row, **plain_run)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": 0}, "temperature is 0.0; it must be above 0"),
        ({"row": "IV"}, "row is 'IV'; it must be one of plain, I, teacher"),
        ({"task": "jigsaw"}, "must be one of rotation, instance, none"),
        ({"form": "code"}, "form is of the task 'instance'"),
        ({"form": "code", "task": "instance", "row": "plain"}, "task changes nothing in row 'plain'"),
        ({"row": "I", "stage2_epochs": 3}, "stage2_epochs changes nothing in row 'I'"),
        ({"form": "deck"}, "must be one of code, formula"),
    ],
)
def test_wrong_options_are_refused(options, reason, digits):
    with pytest.raises(longtail.UsageError, match=reason):
        recipe_of("ssd", digits, **options)


def test_logits_of_the_phases_before_stay():
    logits = torch.randn(4, 5)
    assert torch.equal(PickHead("soft")(logits), logits)
