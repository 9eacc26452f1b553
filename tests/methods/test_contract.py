"""What every registered method must do; a new method is tested by its row in CONTRACT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail import data as datasets
from longtail import folder, methods
from longtail.request import Task, build_recipe, build_run_network, make_config
from longtail.training.inference import HeadView, stored_features
from longtail.training.loader import StageLoader
from longtail.training.loop import InterruptedRunError
from longtail.training.recipe import Prepared, Shape, enter_structure
from longtail.training.runtime import Runtime
from longtail.training.world import World
from longtail.types import Progress
from reporters import Crash, Stop

CONTRACT = [
    *methods.names(),
    "ce+drw",
    "ce+drs",
    "ldam+drw",
    "vs+drw",
    "focal+drw",
    "bsce+mixup",
    "ldam+drw+mixup",
    "ce+drs+mixup",
    "crt+mixup",
    "ce+cutmix",
    "ce+remix",
    "ldam+drw+cmo",
    "crt+cmo",
    "crt+randaug",
    "ce+autoaug",
    "ldam+mixup+cam",
    "crt+h2t",
    "mislas+h2t",
    "gcl+h2t",
    "ride+mixup",
    "ride+cmo",
    "ride+h2t",
    "ride+ea",
    "bbn+mixup",
    "reslt+cmo",
    "reslt+h2t",
    "lfme+mixup",
    "ace+mixup",
    "ce+post-hoc-la",
    "dive+mixup",
    "ce+ssp",
    "ldam+drw+dev",
]


@pytest.fixture
def digits(digits, request):
    """The digits of all tests; with a development set held out for a row with a part that needs one."""
    name = request.node.callspec.params.get("name", "ce") if hasattr(request.node, "callspec") else "ce"
    return datasets.load("digits", dev_per_class=5) if methods.needs_dev(name) else digits


def same_results(a: longtail.Run, b: longtail.Run) -> None:
    ours, theirs = load_file(a.path / "model.safetensors"), load_file(b.path / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    timing = {"train_seconds", "images_per_second"}
    assert {k: v for k, v in a.metrics.items() if k not in timing} == {
        k: v for k, v in b.metrics.items() if k not in timing
    }
    keep = ("stage", "epoch", "lr", "loss", "test_top1")
    assert [[h.get(k) for k in keep] for h in a.history] == [[h.get(k) for k in keep] for h in b.history]


def parts(name: str, digits, **options):
    config = make_config(
        digits,
        name,
        protocol="quick",
        seed=0,
        backbone=None,
        precision="fp32",
        eval_every=None,
        options={"epochs": 3, **options},
    )
    task = Task.of(digits)
    recipe = build_recipe(config, task)
    return recipe, build_run_network(config, task, recipe)


@pytest.mark.parametrize("name", CONTRACT)
def test_stopped_and_killed_runs_resume_to_the_same_bits(name, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    whole = longtail.train(digits, name, out=tmp_path / "whole", **plain_run)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, name, out=tmp_path / "killed", reporter=Crash(14), **plain_run)
    killed = longtail.train(digits, name, out=tmp_path / "killed", resume=True, **plain_run)
    same_results(whole, killed)
    with pytest.raises(InterruptedRunError):
        longtail.train(digits, name, out=tmp_path / "stopped", reporter=Stop(25), **plain_run)
    stopped = longtail.train(digits, name, out=tmp_path / "stopped", resume=True, **plain_run)
    same_results(whole, stopped)


@pytest.mark.parametrize("name", CONTRACT)
def test_metrics_are_valid_json_and_predictions_finite(name, digits, plain_run, tmp_path):
    run = longtail.train(digits, name, out=tmp_path / "run", **{**plain_run, "precision": "bf16"})
    text = (run.path / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in metrics.json"))
    assert metrics["method"] == methods.canonical(name)
    assert metrics["selection"] == "last-epoch"
    assert 0 <= metrics["top1"] <= 100
    assert len(metrics["per_class"]) == len(metrics["class_counts"]) == 10
    logits = longtail.load(run.path).logits(digits.test.images[:7])
    assert logits.shape == (7, 10)
    assert torch.isfinite(torch.from_numpy(logits)).all()


@pytest.mark.parametrize("name", CONTRACT)
def test_a_loaded_model_gives_the_logits_that_were_evaluated(name, digits, plain_run, tmp_path):
    import numpy as np

    run = longtail.train(digits, name, out=tmp_path / "run", **plain_run)
    saved = np.load(run.path / "test_logits.npz")["logits"]
    np.testing.assert_array_equal(longtail.load(run.path).logits(digits.test.images), saved)


@pytest.mark.parametrize("name", CONTRACT)
def test_gradients_reach_what_trains_and_nothing_else(name, digits):
    recipe, network = parts(name, digits)
    network = network.to(memory_format=torch.channels_last)
    world, seen = World(), 0
    for number, stage in enumerate(recipe.stages):
        before = network
        network = enter_structure(network, stage, Shape("small", 10, 1))
        if stage.objective is None:
            continue
        if isinstance(stage.objective, Prepared):
            stage.objective.prepare(before, network)
        images = digits.train.images
        view = network
        features = stored_features(network, images, Task.of(digits).plain_transforms(), Runtime())
        if stage.fit is not None:
            stage.fit(network.head, features, digits.train.targets)
        if stage.cached_features:
            images, view = features, HeadView(network)
        network.backbone.requires_grad_(stage.trainable == "all")
        dev = None if digits.dev is None else (digits.dev.images, digits.dev.targets)
        facts = {"number": number, "num_classes": 10, "seed": 0, "world": world}
        loader = StageLoader(images, digits.train.targets, stage, dev=dev, **facts)
        network.zero_grad(set_to_none=True)
        batches, weight = loader.batches(loader.plan(0), 0, 0)
        # Halfway, since what grows from 0 over the epochs has no gradient in the first.
        progress = Progress(stage.first_epoch + stage.epochs // 2, stage.schedule.epochs)
        loss = stage.objective(view, batches, progress)
        assert loss.ndim == 0
        assert weight == 1
        loss.backward()
        for parameter_name, parameter in network.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, parameter_name
                assert torch.isfinite(parameter.grad).all(), parameter_name
                assert parameter.grad.abs().sum() > 0, parameter_name
            else:
                assert parameter.grad is None, parameter_name
        seen += 1
    assert seen >= 1


@pytest.mark.parametrize("name", CONTRACT)
def test_objective_state_round_trip(name, digits):
    recipe, _ = parts(name, digits)
    again, _ = parts(name, digits)
    for stage, other in zip(recipe.stages, again.stages, strict=True):
        if stage.objective is not None:
            other.objective.load_state_dict(stage.objective.state_dict())
            assert repr(other.objective) == repr(stage.objective)


def test_every_method_and_modifier_is_in_the_contract():
    covered = {part for name in CONTRACT for part in name.split("+")}
    assert covered == set(methods.names()) | set(methods.modifiers())


def test_frozen_backbone_does_not_move(digits, plain_run, tmp_path):
    ce = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    for name in ("crt", "lws", "tau-norm", "ncm"):
        run = longtail.train(digits, name, out=tmp_path / name, **plain_run)
        ours, base = load_file(run.path / "model.safetensors"), load_file(ce.path / "model.safetensors")
        backbone = [key for key in base if key.startswith("backbone.")]
        assert backbone
        assert all(torch.equal(ours[key], base[key]) for key in backbone)


@pytest.mark.parametrize(
    ("name", "lender"),
    [
        # Runs that are the first stages as a whole ...
        *((name, "ce") for name in ("crt", "lws", "tau-norm", "ncm", "fsa", "cb-finetune")),
        *((name, "ce+mixup") for name in ("crt+mixup", "mislas", "crt+h2t")),
        *(("crt+cmo", "ce+cmo"), ("ride+h2t", "ride"), ("ride+cmo+ea", "ride+cmo"), ("crt+dev", "ce+dev")),
        ("ce+mixup+post-hoc-la", "ce+mixup"),
        # ... and runs that only begin like them.
        *(("lws", "crt"), ("crt", "ncm"), ("gcl+h2t", "gcl"), ("ce+drs", "ce+drw"), ("bsce+ssp", "crt+ssp")),
    ],
)
def test_a_run_stands_in_for_the_first_stages_that_it_shares(name, lender, digits, plain_run, tmp_path):
    base = longtail.train(digits, lender, out=tmp_path / "base", **plain_run)
    whole = longtail.train(digits, name, out=tmp_path / "whole", **plain_run)
    short = longtail.train(digits, name, out=tmp_path / "short", stage1=base.path, **plain_run)
    ours, theirs = load_file(whole.path / "model.safetensors"), load_file(short.path / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert short.metrics["top1"] == whole.metrics["top1"]
    assert short.metrics["stage1"] == str(Path(base.path))


def test_a_first_stage_with_other_options_is_refused(digits, plain_run, tmp_path):
    base = longtail.train(digits, "ce+mixup", out=tmp_path / "base", **plain_run)
    with pytest.raises(
        longtail.UsageError, match=r"\(ce\+mixup\) has no first stage of crt\+mixup: they differ in mixing.alpha"
    ):
        longtail.train(digits, "crt+mixup", out=tmp_path / "run", stage1=base.path, alpha=0.2, **plain_run)


def test_another_run_is_refused_as_first_stage(digits, plain_run, tmp_path):
    base = longtail.train(digits, "ce", out=tmp_path / "base", seed=1, **plain_run)
    with pytest.raises(longtail.UsageError, match="seed 0 here, 1 there"):
        longtail.train(digits, "crt", out=tmp_path / "run", stage1=base.path, **plain_run)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cb-ce+drw", "weighs classes from the first epoch"),
        ("cb-focal+drs", "balance twice"),
        ("crt+drw", "already rebalances in a later stage"),
        ("tau-norm+drs", "already rebalances in a later stage"),
        ("ce+drw+drs", "already rebalances in a later stage"),
        ("cb-sampling+drw", "samples by class"),
        ("progressive-sampling+drs", "samples by class"),
        ("bsce+drs", "balance twice"),
        ("la+cam", "balance twice"),
        ("ldam+post-hoc-la", "own inference rule"),
        *(
            (f"{name}+post-hoc-la", "balance twice")
            for name in ("bsce", "crt", "tau-norm", "rw", "sqrt-sampling", "ce+drw")
        ),
    ],
)
def test_pairs_that_make_no_sense_say_so(name, reason, digits):
    with pytest.raises(longtail.UsageError, match=reason):
        parts(name, digits)


def test_modifiers_apply_in_one_order_whatever_is_typed(digits, plain_run, tmp_path):
    first = longtail.train(digits, "ce+mixup+drw", out=tmp_path / "a", **plain_run)
    second = longtail.train(digits, "ce+drw+mixup", out=tmp_path / "b", **plain_run)
    same_results(first, second)
