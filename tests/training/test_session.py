from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail import data as datasets
from longtail import underway
from longtail.command import command_of
from longtail.config import read_config
from longtail.errors import UsageError
from longtail.training.runtime import Runtime, settle, step_seconds
from reporters import Crash

KILLED = """
import sys, longtail
from longtail import folder
folder.SAVE_SECONDS = 0.0
longtail.train("digits", "ldam+drw", protocol="common", epochs=40, precision="fp32", threads=1, compile="off",
               device="cpu", out=sys.argv[1], resume=len(sys.argv) > 2)
"""


def test_kill_nine_and_resume_gives_the_same_bits(tmp_path):
    """The real thing: a process that is killed with SIGKILL in the middle, several times."""
    program = [sys.executable, "-c", KILLED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*program, str(tmp_path / "whole")], check=True, env=environment)
    killed = tmp_path / "killed"
    resume: list[str] = []
    kills = 0
    for epochs in (5, 20, 34):
        process = subprocess.Popen([*program, str(killed), *resume], env=environment)
        history = killed / "history.jsonl"
        while process.poll() is None:
            if history.exists() and history.read_text().count("\n") >= epochs:
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.005)
        resume = ["resume"]
    assert kills >= 2
    subprocess.run([*program, str(killed), "resume"], check=True, env=environment)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert longtail.load(killed).metrics["top1"] == longtail.load(tmp_path / "whole").metrics["top1"]
    assert [h["loss"] for h in longtail.load(killed).history] == [
        h["loss"] for h in longtail.load(tmp_path / "whole").history
    ]


def test_same_seed_same_bits_other_seed_other_bits(digits, plain_run, tmp_path):
    runs = [
        longtail.train(digits, "ce", seed=seed, out=tmp_path / str(k), **plain_run) for k, seed in enumerate((3, 3, 4))
    ]
    first, second, third = (load_file(run.path / "model.safetensors") for run in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


def test_a_folder_with_another_run_is_refused_by_name(digits, plain_run, tmp_path):
    longtail.train(digits, "ce", out=tmp_path / "run", **plain_run)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(UsageError, match=r"method 'bsce' here, 'ce' there"):
        longtail.train(digits, "bsce", out=tmp_path / "run", **plain_run)
    with pytest.raises(UsageError, match=r"lr 0.2 here, 0.1 there"):
        longtail.train(digits, "ce", out=tmp_path / "run", resume=True, lr=0.2, **plain_run)
    with pytest.raises(UsageError, match="already holds this run, finished"):
        longtail.train(digits, "ce", out=tmp_path / "run", **plain_run)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}


def test_a_loaded_set_is_recorded_as_what_it_is(plain_run, tmp_path):
    loaded = datasets.load("digits", imbalance=20, profile="step", subset_seed=3, dev_per_class=2)
    run = longtail.train(loaded, "ce", out=tmp_path / "run", imbalance=20, **plain_run)  # what it says of itself
    config = run.config
    assert (config.imbalance, config.profile, config.subset_seed, config.dev_per_class) == (20, "step", 3, 2)
    assert "--profile step --dev-per-class 2 --subset-seed 3" in command_of(config, {})


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"imbalance": 10}, "imbalance is 10, but the data set is loaded already, with 50.0"),
        ({"profile": "step"}, "profile is 'step', but the data set is loaded already, with 'exp'"),
        ({"subset_seed": 3}, "subset_seed is 3, but the data set is loaded already, with 0"),
        ({"dev_per_class": 5}, "dev_per_class is 5, but the data set is loaded already, with 0"),
        ({"image_size": 8}, "image_size is 8, but the data set is loaded already"),
        ({"data_root": "there"}, "data_root is 'there'"),
        ({"download": True}, "download is True"),
        ({"strict": True}, "strict is True"),
    ],
)
def test_a_loaded_set_and_how_to_load_one_exclude_each_other(digits, plain_run, tmp_path, argument, message):
    with pytest.raises(UsageError, match=message):
        longtail.train(digits, "ce", out=tmp_path / "run", **argument, **plain_run)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [None, ([1], [2])])
def test_what_is_no_data_is_refused_by_its_type(plain_run, tmp_path, wrong):
    with pytest.raises(UsageError, match=f"data is a name, a path or a LongTailData, got {type(wrong).__name__}"):
        longtail.train(wrong, "ce", out=tmp_path / "run", **plain_run)
    assert longtail.train(Path("digits"), "ce", out=tmp_path / "run", **plain_run).finished


def test_a_run_goes_on_with_the_images_that_it_was_begun_with(digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(longtail.folder, "SAVE_SECONDS", 0.0)
    images = digits.train.images.clone()
    images[7, 0, 4, 4] ^= 1
    other = replace(digits, train=replace(digits.train, images=images))
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "ce", out=tmp_path / "run", reporter=Crash(22), **plain_run)
    with pytest.raises(UsageError, match=f"fingerprint '{other.fingerprint}' here, '{digits.fingerprint}' there"):
        longtail.train(other, "ce", out=tmp_path / "run", resume=True, **plain_run)
    with pytest.raises(UsageError, match="was trained otherwise: the images have changed"):
        longtail.train(other, "crt", out=tmp_path / "crt", stage1=tmp_path / "run", **plain_run)
    path = tmp_path / "run" / "config.yaml"
    path.write_text(re.sub("  fingerprint: [0-9a-f]{32}\n", "", path.read_text()))  # as earlier versions wrote it
    assert "fingerprint" not in read_config(path.parent)[1]["data"]
    run = longtail.train(digits, "ce", out=tmp_path / "run", resume=True, **plain_run)
    assert [record["epoch"] for record in run.history] == [1, 2, 3]
    longtail.train(digits, "crt", out=tmp_path / "crt", stage1=tmp_path / "run", **plain_run)


def test_resuming_a_finished_run_returns_it(digits, plain_run, tmp_path):
    first = longtail.train(digits, "ce", out=tmp_path / "run", **plain_run)
    again = longtail.train(digits, "ce", out=tmp_path / "run", resume=True, **plain_run)
    assert again.metrics == first.metrics


def test_a_resumed_run_keeps_its_threads_unless_others_are_asked_for(digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(longtail.folder, "SAVE_SECONDS", 0.0)
    for threads, used in (("auto", 1), (2, 2), ("2", 2)):
        out = tmp_path / f"{threads!r}"
        with pytest.raises(RuntimeError, match="killed"):
            longtail.train(digits, "ce", out=out, reporter=Crash(22), **plain_run)
        with pytest.raises(UsageError, match="threads is 0"):
            longtail.train(digits, "ce", out=out, resume=True, **{**plain_run, "threads": 0})
        run = longtail.train(digits, "ce", out=out, resume=True, **{**plain_run, "threads": threads, "compile": "auto"})
        assert run.metrics["threads"] == run.runtime.threads == used
        assert (run.config.method, run.config.budget["epochs"]) == ("ce", 3)
        assert run.metrics["compile"] is False
        assert [record["epoch"] for record in run.history] == [1, 2, 3]


def test_what_is_asked_for_by_name_changes_a_runtime_and_nothing_else():
    begun = Runtime("cpu", "bf16", 4, compile=False)
    assert begun.changed("auto", "auto") == begun
    assert begun.changed("2", "on") == Runtime("cpu", "bf16", 2, compile=True)
    assert Runtime(compile=True).changed(3, "off") == Runtime(threads=3)
    with pytest.raises(UsageError, match="compile is 'maybe'"):
        begun.changed("auto", "maybe")


def test_nothing_to_resume(digits, plain_run, tmp_path):
    with pytest.raises(UsageError, match="holds no run to resume"):
        longtail.train(digits, "ce", out=tmp_path / "run", resume=True, **plain_run)


def test_the_configuration_holds_what_is_needed_to_run_again(digits, plain_run, tmp_path):
    run = longtail.train(digits, "ldam+drw", out=tmp_path / "run", max_m=0.3, **plain_run)
    config, more = read_config(run.path)
    assert config.options == {"ldam.max_m": 0.3}
    assert config.budget["epochs"] == 3
    assert config.budget["lr"] == 0.1
    assert more["data"]["class_counts"] == digits.class_counts
    assert {"torch", "commit", "command", "processor"} <= more["made_by"].keys()
    assert more["runtime"] == {"device": "cpu", "precision": "fp32", "threads": 1, "compile": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -3}, "epochs is -3"),
        ({"batch_size": 5000}, "only 331 images"),
        ({"seed": -1}, "seed is -1"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"max_n": 0.5}, "unknown option 'max_n'"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"threads": 0}, "threads is 0"),
        ({"compile": "maybe"}, "compile is 'maybe'"),
        ({"device": "tpu"}, "tpu"),
        ({"backbone": "resnet33"}, "unknown backbone 'resnet33'"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(digits, plain_run, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        longtail.train(digits, "ldam", out=tmp_path / "run", **{**plain_run, **options})
    assert not (tmp_path / "run").exists()


def test_the_probe_leaves_the_network_as_it_was():
    from longtail.networks import build_network

    network = build_network("small", 10, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    runtime = settle(network, (1, 8, 8), device=torch.device("cpu"))
    assert runtime.precision in ("bf16", "fp32")
    assert runtime.threads >= 1
    assert step_seconds(network, (1, 8, 8), Runtime()) > 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_compiled_training_equals_eager_to_rounding(digits, plain_run, tmp_path):
    runs = [
        longtail.train(digits, "bsce", out=tmp_path / mode, **{**plain_run, "epochs": 1, "compile": mode})
        for mode in ("off", "on")
    ]
    assert runs[0].history[0]["loss"] == pytest.approx(runs[1].history[0]["loss"], rel=1e-4)
    assert runs[1].metrics["compile"] is True


def test_a_run_killed_before_its_first_state_begins_again(digits, plain_run, tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "ce", out=tmp_path / "run", reporter=Crash(22), **plain_run)  # 11 steps an epoch
    assert not (tmp_path / "run" / "state.pt").exists()
    run = longtail.train(digits, "ce", out=tmp_path / "run", resume=True, **plain_run)
    assert [record["epoch"] for record in run.history] == [1, 2, 3]


def test_the_last_epoch_is_looked_at_once(digits, plain_run, tmp_path, monkeypatch):
    looks = []
    network_logits = underway.network_logits
    monkeypatch.setattr(underway, "network_logits", lambda *args: (looks.append(1), network_logits(*args))[1])
    for method in ("ce+post-hoc-la", "ncm"):  # after ncm's last epoch, which is not looked at, it fits its means
        run = longtail.train(digits, method, eval_every=2, out=tmp_path / method, **plain_run)
        assert len(looks) == 2, method
        assert run.metrics["top1"] == 100 * (run.predict(digits.test.images) == digits.test.targets.numpy()).mean()
        looks.clear()


@pytest.mark.parametrize("method", ["crt", "ride+h2t"])
def test_looks_between_epochs_on_stored_features_see_what_the_network_says(
    method, digits, plain_run, tmp_path, monkeypatch
):
    """Test features are computed once for a stage that trains the head alone; what the looks say stays the same."""
    computed = []
    stored = underway.stored_features
    monkeypatch.setattr(underway, "stored_features", lambda *args: (computed.append(1), stored(*args))[1])
    quick = longtail.train(digits, method, eval_every=1, out=tmp_path / "a", **plain_run)
    assert len(computed) == 1
    monkeypatch.setattr(underway.Session, "_look", underway.Session._test_logits)
    slow = longtail.train(digits, method, eval_every=1, out=tmp_path / "b", **plain_run)
    looks = [line["test_top1"] for line in slow.history]
    assert [line["test_top1"] for line in quick.history] == pytest.approx(looks, abs=0.5)  # rounding may move an image
    assert quick.metrics["top1"] == slow.metrics["top1"]
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (quick, slow))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
