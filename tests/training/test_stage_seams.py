"""What a stage may ask for beside its images: a fresh network, a teacher, further views, a development set."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import longtail
from longtail import data as datasets
from longtail import folder, methods
from longtail.augment import Compose, Normalize
from longtail.config import read_config, write_config
from longtail.errors import LongtailError, UsageError
from longtail.losses import CrossEntropyLoss
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Teacher, build_network
from longtail.sampling import ClassBalancedSampling, InstanceSampling
from longtail.training.loader import StageLoader
from longtail.training.recipe import Recipe, Schedule, Stage
from longtail.training.world import World
from reporters import Crash

PLAIN = Compose((Normalize((0.0,), (1.0,)),))


class Taught(nn.Module):
    """Follow the teacher's logits, and count the steps in a buffer."""

    def __init__(self, teacher=None):
        super().__init__()
        self.teacher = teacher
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def prepare(self, before, network):
        assert before is not network
        if self.teacher is None:
            self.teacher = Teacher(copy.deepcopy(before))

    def forward(self, network, batches, progress):
        self.steps += 1
        images = batches[0].images
        return (network(images) - self.teacher(images)).square().mean() + 0.0 * progress.lr


def taught(context):
    """Teach a fresh network by the one of the first stage, or by the run that is given."""
    first = context.stage(SupervisedObjective(CrossEntropyLoss(context.class_counts)))
    second = context.stage(Taught(context.teacher), name="student")
    student = Stage(**{**vars(second), "new_network": build_network})
    return Recipe(stages=(student,) if context.teacher else (first, student))


@pytest.fixture
def table(monkeypatch):
    card = methods.Card("Taught", "nobody", "", "for tests", "never", teacher=True)
    monkeypatch.setitem(methods.METHODS, "taught", methods.Entry(taught, card))
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)


def tensors(run):
    return load_file(run.path / "model.safetensors")


def same(one, other):
    ours, theirs = tensors(one), tensors(other)
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("after", [14, 40, 58])  # 11 steps an epoch, 3 epochs a stage
def test_a_taught_run_resumes_to_the_same_bits_in_either_stage(after, table, digits, plain_run, tmp_path):
    whole = longtail.train(digits, "taught", out=tmp_path / "whole", **plain_run)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "taught", out=tmp_path / "killed", reporter=Crash(after), **plain_run)
    killed = longtail.train(digits, "taught", out=tmp_path / "killed", resume=True, **plain_run)
    assert same(whole, killed)
    assert [h["loss"] for h in whole.history] == [h["loss"] for h in killed.history]


def test_a_given_teacher_takes_the_place_of_the_first_stage(table, digits, plain_run, tmp_path):
    base = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    run = longtail.train(digits, "taught", out=tmp_path / "run", teacher=base.path, **plain_run)
    assert {h["stage"] for h in run.history} == {"student"}
    assert run.metrics["teacher"] == str(base.path)
    # It can be used without its teacher.
    for file in base.path.iterdir():
        file.unlink()
    assert longtail.load(run.path).logits(digits.test.images[:3]).shape == (3, 10)


def test_a_teacher_given_by_a_relative_path_is_found_from_elsewhere(table, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    longtail.train(digits, "ce", out="ce", **plain_run)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "taught", out="run", teacher="ce", reporter=Crash(14), **plain_run)
    config, more = read_config(Path("run"))
    assert config.teacher == str(tmp_path / "ce")
    told = f"teacher '{tmp_path}/ce' here, '{tmp_path}/run' there"
    assert config.differences(dataclasses.replace(config, teacher="run")) == [told]
    monkeypatch.chdir(tmp_path / "ce")
    longtail.train(digits, "taught", out=tmp_path / "run", resume=True, teacher=config.teacher, **plain_run)
    monkeypatch.chdir(tmp_path)
    write_config(Path("run"), dataclasses.replace(config, teacher="ce"), **more)  # as earlier versions wrote it
    for same in ("ce", "run/../ce", config.teacher):
        assert longtail.train(digits, "taught", out="run", resume=True, teacher=same, **plain_run).finished


def test_a_finished_first_stage_teaches_as_the_run_s_own(table, digits, plain_run, tmp_path):
    base = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    whole = longtail.train(digits, "taught", out=tmp_path / "whole", **plain_run)
    assert same(whole, longtail.train(digits, "taught", out=tmp_path / "short", stage1=base.path, **plain_run))


def test_wrong_teachers_are_named(table, digits, plain_run, tmp_path):
    with pytest.raises(UsageError, match="ce learns from no teacher"):
        longtail.train(digits, "ce", teacher=tmp_path, **plain_run)
    with pytest.raises(LongtailError, match="is not a run folder"):
        longtail.train(digits, "taught", teacher=tmp_path, **plain_run)


def test_a_teacher_never_moves():
    teacher = Teacher(build_network("small", 10, 1))
    nn.Sequential(teacher).train()
    before = copy.deepcopy(teacher.state_dict())
    out = teacher(torch.randn(4, 1, 8, 8))
    assert not out.requires_grad
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def stage(**changes):
    objective = SupervisedObjective(CrossEntropyLoss([1] * 10))
    return Stage("s", objective, 2, PLAIN, 32, schedule=Schedule(2), **changes)


def loader(data, made):
    held_out = (data.dev.images, data.dev.targets) if data.dev else None
    images, targets = data.train.images, data.train.targets
    return StageLoader(images, targets, made, number=0, num_classes=10, seed=0, world=World(), dev=held_out)


@pytest.fixture(scope="module")
def with_dev():
    return datasets.load("digits", imbalance=10, dev_per_class=2)


def test_views_show_the_first_stream_s_images_and_change_nothing_else(with_dev):
    dark = Compose((Normalize((0.0,), (2.0,)),))
    made = loader(with_dev, stage(views=(PLAIN, dark), sampling=(InstanceSampling(), ClassBalancedSampling())))
    (first, second, same_view, darker), _ = made.batches(made.plan(0), 0, 1)
    assert torch.equal(first.images, same_view.images)
    assert torch.allclose(first.images, 2 * darker.images)
    assert torch.equal(first.indices, darker.indices)
    assert not torch.equal(first.indices, second.indices)
    plain = loader(with_dev, stage())
    (alone,), _ = plain.batches(plain.plan(0), 0, 1)
    assert torch.equal(alone.images, first.images)


@pytest.mark.parametrize(("batch_size", "images"), [(60, 100), (75, 100), (80, 100), (81, 81), (97, 97), (100, 100)])
def test_a_small_last_batch_is_dropped_and_another_is_kept(with_dev, batch_size, images):
    indices = torch.arange(100) % len(with_dev.train.targets)
    data = dataclasses.replace(with_dev, train=with_dev.train.subset(indices), train_indices=indices)
    plan = loader(data, dataclasses.replace(stage(), batch_size=batch_size)).plan(0)
    assert plan.images == images
    assert plan.steps == -(-images // batch_size)


def test_the_development_set_is_drawn_as_often_as_an_epoch_needs(with_dev):
    made = loader(with_dev, stage(dev=(InstanceSampling(),), dev_batch_size=10))
    plan = made.plan(0)
    assert len(plan.dev[0]) == 10 * plan.steps
    assert plan.steps > 2
    seen = []
    for step in range(plan.steps):
        (_, dev), _ = made.batches(plan, 0, step)
        assert torch.equal(dev.targets, with_dev.dev.targets[dev.indices])
        assert torch.equal(dev.images, PLAIN(with_dev.dev.images[dev.indices], torch.Generator()))
        assert len(dev) == 10
        seen += dev.indices.tolist()
    # Every image of the set once before any comes again.
    assert sorted(seen[:20]) == list(range(20))
    assert seen[:20] != seen[20:40]
    assert not torch.equal(made.plan(1).dev[0], plan.dev[0])


def test_a_development_batch_is_at_most_the_set(with_dev):
    made = loader(with_dev, stage(dev=(InstanceSampling(),)))
    (_, dev), _ = made.batches(made.plan(0), 0, 0)
    assert len(dev) == len(with_dev.dev) == 20


def test_a_stage_that_needs_a_development_set_says_so(digits):
    with pytest.raises(ValueError, match="development set, and there is none"):
        loader(digits, stage(dev=(InstanceSampling(),)))


def test_stages_refuse_what_they_cannot_do():
    frozen = {"trainable": "head", "batch_norm": "eval", "cached_features": True}
    with pytest.raises(ValueError, match="cached"):
        stage(views=(PLAIN,), **frozen)
    with pytest.raises(ValueError, match="new network"):
        stage(new_network=build_network, continues=True)


def test_an_objective_draws_other_numbers_than_the_augmentation(digits, plain_run, tmp_path, monkeypatch):
    of_images, of_objectives = [], []
    batches, forward = StageLoader.batches, SupervisedObjective.forward

    def noting_batches(loader, *args):
        result = batches(loader, *args)
        loader._generator.manual_seed(loader._generator.initial_seed())
        of_images.append(torch.rand(8, generator=loader._generator))
        return result

    def noting_forward(objective, *args):
        of_objectives.append(torch.rand(8))
        return forward(objective, *args)

    monkeypatch.setattr(StageLoader, "batches", noting_batches)
    monkeypatch.setattr(SupervisedObjective, "forward", noting_forward)
    longtail.train(digits, "ce", out=tmp_path / "run", **{**plain_run, "epochs": 1})
    assert len(of_images) == len(of_objectives) > 5
    drawn = torch.stack(of_images + of_objectives)
    assert len(drawn.unique(dim=0)) == len(drawn)
