"""`longtail train`: results, resuming, and every wrong input that a person can give."""

from __future__ import annotations

import inspect
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from longtail import session
from longtail.cli import progress
from longtail.cli.train import Train
from longtail.config import read_config
from longtail.errors import UsageError
from longtail.training.budget import BUDGET_FIELDS
from pictures import make_folder


def test_result_is_told_for_people(longtail, fast):
    said = longtail("train", "digits", "--method", "ce", "--epochs", "2", *fast, "--out", "a run")
    assert said.status == 0
    assert "top-1" in said.out
    assert "few" in said.out
    assert "longtail evaluate 'a run'" in said.out
    lines = said.err.splitlines()
    assert lines[0] == "ce on digits, imbalance 50, protocol common, 2 epochs, seed 0, in a run"
    assert lines[1].startswith("train  epoch 1/2  loss ")
    assert lines[-1].startswith("train  epoch 2/2  loss ")


def test_json_is_the_metrics_and_options_reach_the_run(longtail, fast):
    said = longtail(
        "train", "--method", "ldam", "--ldam.max-m", "0.3", "--s=20", "--lr", "0.02", "--epochs", "2", *fast,
        "--imbalance", "10", "--seed", "3", "--out", "run", "--json", "--quiet",
    )  # fmt: skip
    assert said.status == 0
    assert said.err == ""
    assert said.json["path"] == "run"
    assert (said.json["method"], said.json["imbalance"], said.json["seed"]) == ("ldam", 10.0, 3)
    assert said.json == {**json.loads(Path("run/metrics.json").read_text()), "path": "run"}
    config = read_config(Path("run"))[0]
    assert config.options == {"ldam.max_m": 0.3, "ldam.s": 20.0}
    assert config.budget["lr"] == 0.02
    assert config.budget["epochs"] == 2


def test_empty_group_is_not_available(longtail, fast):
    said = longtail("train", "digits", "--method", "ce", "--epochs", "1", *fast, "--imbalance", "1", "--out", "run")
    assert said.status == 0
    few = next(line for line in said.out.splitlines() if "few" in line)
    assert few.split() == ["few", "n/a", "0", "classes"]


def test_resume_takes_everything_from_the_folder(longtail, finished, unfinished):
    said = longtail("train", "--resume", "--out", str(unfinished), "--json", "--quiet")
    assert said.status == 0
    before = json.loads((finished / "metrics.json").read_text())
    timing = {"train_seconds", "images_per_second", "path"}
    assert {k: v for k, v in said.json.items() if k not in timing} == {
        k: v for k, v in before.items() if k not in timing
    }


def test_resume_of_a_finished_run_shows_it_again(longtail, finished):
    before = (finished / "metrics.json").read_bytes()
    said = longtail("train", "--resume", "--out", str(finished))
    assert said.status == 0
    assert str(finished) in said.out
    assert (finished / "metrics.json").read_bytes() == before


def test_resume_rebuilds_options_of_every_kind(longtail, fast):
    words = ["--method", "ldam+drw", "--max-m", "0.4", "--beta", "0.999", "--schedule", "step", "--milestones", "2"]
    words += ["--decay", "0.1", "--nesterov", "--epochs", "4", "--profile", "step", "--subset-seed", "5", "--seed", "2"]
    words += ["--dev-per-class", "1", "--imbalance", "5", "--eval-every", "3"]
    assert longtail("train", "digits", *words, *fast, "--out", "run", "--quiet").status == 0
    for name in ("metrics.json", "state.pt"):
        (Path("run") / name).unlink()
    said = longtail("train", "--resume", "--out", "run", "--json", "--quiet")
    assert said.status == 0, said
    assert said.json["seed"] == 2


WRONG = {
    "method": (["--method", "bse"], 2, "unknown method 'bse'\n  did you mean bsce"),
    "modifier": (["--method", "ce+dwr"], 2, "unknown modifier 'dwr'\n  did you mean drw"),
    "pair": (["--method", "crt+drw"], 2, "+drw does not fit"),
    "flag": (["--metod", "ce"], 2, "unknown option '--metod'\n  did you mean --method"),
    "budget": (["--weight-dekay", "1"], 2, "did you mean --weight-decay"),
    "option": (["--method", "ldam", "--maxm", "1"], 2, "did you mean --max-m"),
    "part": (["--method", "ce", "--ldam.max-m", "1"], 2, "option --ldam.max-m is for 'ldam', which is no part of 'ce'"),
    "type": (["--lr", "fast"], 2, "lr is 'fast'"),
    "protocol": (["--protocol", "quik"], 2, "unknown protocol 'quik'\n  did you mean quick?"),
    "no protocol": (["--protocol", "published"], 2, "no published protocol for digits"),
    "epochs": (["--epochs", "-3"], 2, "epochs is -3; it must be at least 1"),
    "batch": (["--batch-size", "5000"], 2, "batch_size is 5000"),
    "below one": (["--imbalance", "0.5"], 2, "imbalance must be a finite number of at least 1, got 0.5"),
    "too high": (["--imbalance", "500"], 2, "imbalance 500 leaves no image for 3 of 10 classes (classes 7 to 9)"),
    "profile": (["--profile", "linear"], 2, "linear"),
    "seed": (["--seed", "-1"], 2, "seed is -1"),
    "device": (["--device", "tpu"], 2, "unknown device 'tpu'"),
    "threads": (["--threads", "none"], 2, "threads is 'none'"),
    "backbone": (["--backbone", "resnet33"], 2, "unknown backbone 'resnet33'"),
    "margin": (["--method", "ldam", "--max-m", "-1"], 2, "max_m"),
    "stage1 of one stage": (["--method", "ce", "--stage1", "."], 1, "is not a run folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(longtail, name, fast):
    words, status, told = WRONG[name]
    said = longtail("train", "digits", *fast, *words, "--out", "run")
    assert said.status == status, said
    assert told in said.err
    assert len(said.err.splitlines()) <= 2
    assert not Path("run").exists()


def test_unknown_or_missing_data(longtail):
    said = longtail("train", "digts")
    assert said.status == 2
    assert "did you mean digits?" in said.err
    said = longtail("train", "cifar10", "--data-root", "nowhere")
    assert said.status == 1
    assert "nowhere" in said.err
    assert len(said.err.splitlines()) <= 2


def test_folder_of_another_run_is_kept(longtail, finished, fast):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    words = ["train", "digits", "--epochs", "2", *fast, "--out", str(finished)]
    for method in ("bsce", "ce"):
        said = longtail(*words, "--method", method)
        assert said.status == 2
        assert "already holds a run, finished (ce on digits, seed 0)" in said.err
    with pytest.raises(UsageError, match="method 'bsce' here, 'ce' there"):
        session.train("digits", "bsce", epochs=2, out=finished)
    with pytest.raises(UsageError, match="already holds this run, finished"):
        session.train("digits", "ce", epochs=2, precision="fp32", out=finished)
    said = longtail("train", "--resume", "--out", str(finished), "--seed", "4")
    assert said.status == 2
    assert "seed 4 here, 0 there" in said.err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_nothing_to_resume(longtail):
    said = longtail("train", "--resume", "--out", "nowhere")
    assert said.status == 1
    assert "nowhere is not a run folder" in said.err
    said = longtail("train", "digits", "--resume", "--out", "nowhere")
    assert said.status == 2
    assert "holds no run to resume" in said.err


def test_truncated_state_and_state_of_another_version(longtail, unfinished):
    state = unfinished / "state.pt"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    said = longtail("train", "--resume", "--out", str(unfinished))
    assert said.status == 1
    assert f"{state} cannot be read as a state file" in said.err
    assert len(said.err.splitlines()) <= 2
    state.write_bytes(whole)
    content = torch.load(state, weights_only=True)
    torch.save({**content, "version": 99}, state)
    said = longtail("train", "--resume", "--out", str(unfinished))
    assert said.status == 1
    assert "state version 99" in said.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"run: {method: [", "expected the node content, but found '<stream end>' in line 1"),
        (b"a: 1", "it has no entry 'run'"),
        (b"run: 1", "not iterable"),
        (b"\xff\xfe\xff", ""),
    ],
)
def test_damaged_configuration(longtail, unfinished, content, told):
    (unfinished / "config.yaml").write_bytes(content)
    said = longtail("train", "--resume", "--out", str(unfinished))
    assert said.status == 1
    assert "cannot be read as a run's configuration: " in said.err
    assert told in said.err
    assert len(said.err.splitlines()) == 2


def test_unwritable_folder(longtail, fast):
    Path("file").write_text("in the way")
    said = longtail("train", "digits", "--epochs", "1", *fast, "--out", "file/run")
    assert said.status == 1
    assert "the run folder file/run cannot be written" in said.err


def test_diverging_run_keeps_its_last_good_state(longtail, monkeypatch, fast):
    monkeypatch.setattr("longtail.folder.SAVE_SECONDS", 0.0)
    blow_up = ["--schedule", "step", "--milestones", "1", "--decay", "1e30", "--warmup", "0"]
    said = longtail("train", "digits", "--method", "ce", "--epochs", "3", *blow_up, *fast, "--out", "run")
    assert said.status == 1
    assert "the loss became nan in epoch 2" in said.err
    state = torch.load("run/state.pt", weights_only=True)
    assert state["position"]["epoch"] == 1
    assert all(torch.isfinite(v).all() for v in state["network"].values() if v.is_floating_point())
    assert not Path("run/metrics.json").exists()


def test_hopeless_learning_rate(longtail, fast):
    said = longtail("train", "digits", "--lr", "1e30", "--epochs", "2", *fast, "--out", "run", "--json")
    assert said.status == 1
    assert "the loss became" in said.json["error"]


def test_a_stopped_run_says_how_to_go_on_and_does(longtail, fast, monkeypatch):
    note = progress.note

    def stop_at_first_loss(line):
        note(line)
        if "loss" in line:
            os.kill(os.getpid(), signal.SIGINT)

    words = ["train", "digits", "--method", "ce", "--epochs", "6", *fast]
    with monkeypatch.context() as patch:
        patch.setattr(progress, "note", stop_at_first_loss)
        said = longtail(*words, "--out", "my run")
    assert said.status == 1
    assert "stopped in stage 1, epoch 2; everything is kept in my run" in said.err
    assert said.err.splitlines()[-1] == "  to go on: longtail train --resume --out 'my run'"
    assert not Path("my run/metrics.json").exists()
    again = longtail("train", "--resume", "--out", "my run")
    assert again.status == 0
    assert "epoch 2/6" in again.err
    assert longtail(*words, "--out", "unbroken", "--quiet").status == 0
    scores = [json.loads((Path(name) / "metrics.json").read_text())["per_class"] for name in ("my run", "unbroken")]
    assert scores[0] == scores[1]


def test_interruption_before_anything_was_written(longtail, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("longtail.session.train", interrupted)
    said = longtail("train", "digits", "--out", "run")
    assert said.status == 1
    assert "give the same command again" in said.err


def test_stage1_stands_in_for_the_first_stage(longtail, finished, fast):
    said = longtail(
        "train", "digits", "--method", "tau-norm", "--epochs", "2", *fast, "--stage1", str(finished), "--out", "run"
    )
    assert said.status == 0
    assert json.loads(Path("run/metrics.json").read_text())["stage1"] == str(finished)


def test_stage1_of_another_schedule_is_refused(longtail, finished, fast):
    words = ("train", "digits", "--method", "tau-norm", "--epochs", "2", *fast, "--lr", "0.03", "--out", "run")
    said = longtail(*words, "--stage1", str(finished))
    assert said.status == 2
    assert "(ce) has no first stage of tau-norm: they differ in optimizer.lr" in said.err


def test_flags_are_the_arguments_of_train():
    parameters = inspect.signature(session.train).parameters
    own = {"epochs", "json", "quiet"}
    missing = set(parameters) - {"reporter", "runtime", "options"} - set(Train.__dataclass_fields__)
    assert missing == set()
    assert set(Train.__dataclass_fields__) - own <= set(parameters)
    for name in set(parameters) & set(Train.__dataclass_fields__) - {"data"}:
        assert Train.__dataclass_fields__[name].default == parameters[name].default, name


def test_help_names_real_fields_of_the_budget():
    listed = (Train.__doc__ or "").partition("(")[2].partition(")")[0]
    names = {word.strip(" ,\n").removeprefix("--").replace("-", "_") for word in listed.split()}
    assert names == BUDGET_FIELDS - {"epochs"}


@pytest.mark.parametrize("words", [("photos", "--out", "photos/run"), ("photos", "--out", "photos"), (".",)])
def test_a_run_within_its_images_is_refused(longtail, fast, tmp_path, monkeypatch, words):
    make_folder(tmp_path / "photos", {"red": 6, "green": 5})
    if words == (".",):
        monkeypatch.chdir(tmp_path / "photos")
    said = longtail("train", *words, *fast)
    assert said.status == 2, said
    assert "would be taken for a class\n  --out ELSEWHERE\n" in said.err
    with pytest.raises(UsageError, match="in the folder of the images"):
        session.train(str(tmp_path / "photos"), out=tmp_path / "photos" / "run", device="cpu")
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["green", "red"]


def test_a_run_that_lies_within_its_images_already_goes_on(longtail, fast, tmp_path):
    """Earlier versions trained there; the images are still those that it began with."""
    folder = make_folder(tmp_path / "photos", {"red": 6, "green": 5})
    assert longtail("train", "photos", "--epochs", "1", *fast, "--backbone", "small", "--out", "run").status == 0
    (folder / "runs").mkdir()
    (tmp_path / "run").rename(folder / "runs" / "first")
    (folder / "runs" / "first" / "model.safetensors").unlink()
    said = longtail("train", "--resume", "--out", "photos/runs/first")
    assert said.status == 0, said
    assert "runs holds runs and is left out" in said.err
    assert (folder / "runs" / "first" / "model.safetensors").exists()
