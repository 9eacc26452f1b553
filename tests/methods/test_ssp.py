from dataclasses import replace

import pytest
import torch
from recipes import lent, recipe_of
from test_contract import same_results

import longtail
from longtail import folder
from longtail.augment import ColorJitter, Sometimes
from longtail.losses import LDAMLoss
from longtail.methods.self_supervision import InstanceDiscrimination, PretextHead, RotationPrediction
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import CosineHead
from longtail.training.loop import Training
from reporters import Crash


@pytest.mark.parametrize("task", ["rotation", "instance"])
def test_a_stage_of_its_own_comes_first(task, digits):
    pretext, *rest = recipe_of("ldam+drw+ssp", digits, task=task, pretext_epochs=7).stages
    plain = recipe_of("ldam+drw", digits).stages
    assert isinstance(pretext.objective, RotationPrediction if task == "rotation" else InstanceDiscrimination)
    assert (pretext.epochs, pretext.schedule.epochs) == (7, 7)
    assert [(s.name, s.epochs, s.first_epoch, s.continues) for s in rest] == [
        (s.name, s.epochs, s.first_epoch, s.continues) for s in plain
    ]
    assert isinstance(rest[0].objective, SupervisedObjective)
    assert isinstance(rest[0].objective.criterion, LDAMLoss)
    assert lent("crt+ssp", "ce+ssp", digits) == 2
    assert lent("crt+ssp", "ce", digits) == 0


def test_the_methods_own_classifier_waits(digits):
    recipe = recipe_of("ldam+ssp", digits)
    network = recipe.network("small", 10, 1)
    fresh = network.head
    waiting = recipe.stages[0].new_head(fresh)
    assert isinstance(waiting, PretextHead)
    assert not any(p.requires_grad for p in fresh.parameters())
    assert recipe.stages[1].new_head(waiting) is fresh
    assert isinstance(fresh, CosineHead)
    assert all(p.requires_grad for p in fresh.parameters())


def test_both_views_of_moco_change_colours(digits):
    stage = recipe_of("ce+ssp", digits, task="instance").stages[0]
    for view in (stage.augment, *stage.views):
        assert any(isinstance(t, Sometimes) and isinstance(t.transform, ColorJitter) for t in view.transforms)
    assert len(stage.views) == 1
    assert stage.optimizer.lr == pytest.approx(0.03 * stage.batch_size / 256)
    assert stage.optimizer.weight_decay == 1e-4


def test_the_method_starts_from_the_features_and_a_fresh_classifier(digits, plain_run, tmp_path, monkeypatch):
    entered = {}

    def noting(loop, stage):
        entered[loop.position.stage] = {name: value.clone() for name, value in loop.network.state_dict().items()}
        train(loop, stage)

    train = Training._train
    monkeypatch.setattr(Training, "_train", noting)
    run = longtail.train(digits, "ce+ssp", out=tmp_path / "ssp", pretext_epochs=1, **plain_run)
    assert [line["stage"] for line in run.history] == ["pretext", "train", "train", "train"]
    before, first = entered[0], entered[1]
    assert any(not torch.equal(value, before[name]) for name, value in first.items() if name.startswith("backbone."))
    assert torch.equal(first["head.weight"], before["head.classifier.weight"])
    other = replace(digits, train=replace(digits.train, targets=digits.train.targets.flip(0)))
    longtail.train(other, "ce+ssp", out=tmp_path / "other", pretext_epochs=1, **plain_run)
    # What was learnt without labels does not depend on them.
    assert all(torch.equal(value, entered[1][name]) for name, value in first.items())


@pytest.mark.parametrize("at", [9, 15])  # in the first epoch, and in the second, when the state of the first is on disk
def test_queue_and_slow_encoder_survive_a_kill(at, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    options = {**plain_run, "task": "instance", "pretext_epochs": 2}
    whole = longtail.train(digits, "ce+ssp", out=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "ce+ssp", out=tmp_path / "run", reporter=Crash(at), **options)
    killed = longtail.train(digits, "ce+ssp", out=tmp_path / "run", resume=True, **options)
    same_results(whole, killed)


@pytest.mark.parametrize("name", ["ride+ssp", "independent-experts+ssp"])
def test_experts_learn_to_tell_rotations(name, digits, plain_run, tmp_path):
    run = longtail.train(digits, name, out=tmp_path / "run", pretext_epochs=1, **plain_run)
    assert run.finished


def test_no_epochs_are_refused(digits):
    with pytest.raises(longtail.UsageError, match="pretext_epochs is 0"):
        recipe_of("ce+ssp", digits, pretext_epochs=0)
