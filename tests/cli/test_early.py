"""Cheap mistakes are found before the data are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import longtail as library
from longtail.cli import early
from longtail.request import rehearse

ALL = {
    "protocol": (["--protocol", "fast"], 2, "unknown protocol 'fast'"),
    "no published protocol": (["--protocol", "published"], 2, "no published protocol for photos"),
    "epochs": (["--epochs", "0"], 2, "epochs is 0; it must be at least 1"),
    "learning rate": (["--lr", "nan"], 2, "lr is nan; it must be above 0"),
    "type": (["--batch-size", "many"], 2, "batch_size is 'many'"),
    "device": (["--device", "tpu"], 2, "unknown device 'tpu'"),
    "threads": (["--threads", "0"], 2, "threads is '0'; it must be auto or a number from 1 on"),
    "weights": (["--weights", "nope.pth"], 1, "there is no file nope.pth with weights"),
    "backbone": (["--backbone", "resnet33"], 2, "unknown backbone 'resnet33'"),
    "looks": (["--eval-every", "0"], 2, "eval_every is 0"),
}
TRAIN = {
    "pair": (["--method", "bsce+drs"], 2, "bsce+drs: +drs would balance twice"),
    "value": (["--method", "crt+h2t", "--p", "2"], 2, "crt+h2t: p is 2.0; it must lie between 0 and 1"),
    "features": (["--method", "ride", "--freeze-backbone"], 2, "ride does not work on fixed features"),
    "development set": (["--method", "l2rw"], 2, "l2rw needs a small balanced development set"),
    "teacher": (["--method", "dive", "--teacher", "nope"], 1, "nope is not a run folder"),
    "no use for a teacher": (["--method", "ce", "--teacher", "nope"], 2, "ce learns from no teacher"),
    "first stage": (["--method", "crt", "--stage1", "nope"], 1, "nope is not a run folder"),
    "seed": (["--seed", "-1"], 2, "seed is -1"),
}
COMPARE = {
    "pair": (["--methods", "ce,bsce+drs"], 2, "bsce+drs: +drs would balance twice"),
    "switch": (["--epochs", "1"], 2, "ldam+drw: 1 epoch leaves no room for a switch at 80% of the training"),
}
CASES = [
    *[(verb, *case) for verb in ("train", "compare", "decouple") for case in ALL.values()],
    *[("train", *case) for case in TRAIN.values()],
    *[("compare", *case) for case in COMPARE.values()],
]


@pytest.fixture
def unread(monkeypatch, tmp_path):
    """A folder that may not be read."""

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr("longtail.data.load", forbidden)
    (tmp_path / "photos").mkdir()


@pytest.mark.parametrize(("verb", "words", "status", "told"), CASES)
def test_a_mistake_is_found_before_the_data_are_read(longtail, unread, verb, words, status, told):
    said = longtail(verb, "photos", *words)
    assert said.status == status, said
    assert told in said.err
    assert len(said.err.splitlines()) <= 2
    assert not Path("runs").exists()


def test_a_folder_that_is_taken_is_found_before_the_data_are_read(longtail, unread, finished, unfinished):
    said = longtail("train", "photos", "--out", str(finished))
    assert said.status == 2
    assert f"{finished} already holds a run, finished (ce on digits, seed 0)\n  choose another --out\n" in said.err
    said = longtail("train", "photos", "--out", str(unfinished))
    assert said.status == 2
    assert "already holds a run, unfinished (ce on digits, seed 0)" in said.err
    assert f"go on with it: longtail train --resume --out {unfinished}" in said.err


def test_an_unfinished_teacher_is_found_before_the_data_are_read(longtail, unread, unfinished):
    said = longtail("train", "photos", "--method", "dive", "--teacher", str(unfinished))
    assert said.status == 1
    assert f"{unfinished} is not finished" in said.err


def test_what_a_run_to_go_on_needs_no_more_is_not_asked_for(longtail, unfinished, tmp_path):
    config = unfinished / "config.yaml"
    text = config.read_text()
    assert "stage1: null" in text or "stage1" not in text
    said = longtail("train", "--resume", "--out", str(unfinished), "--weights", "nope.pth", "--quiet")
    assert said.status == 2  # the difference is told, and not that the file is missing
    assert "weights" in said.err
    assert "here" in said.err


def test_more_threads_than_processors_are_warned_of(monkeypatch, capsys):
    monkeypatch.setattr(early, "processors", lambda: 2)
    for threads, jobs in (("auto", 9), ("2", 1), ("1", 2)):
        early.check_machine("cpu", threads, jobs=jobs)
    early.check_machine("cpu", "99", quiet=True)
    assert capsys.readouterr().err == ""
    early.check_machine("cpu", "99")
    assert capsys.readouterr().err == "99 threads on 2 processors wait for each other and may crawl; try fewer\n"
    early.check_machine("cpu", "2", jobs=3)
    assert capsys.readouterr().err.startswith("6 threads (3 runs of 2) on 2 processors wait for each other")


def test_options_that_many_classes_allow_are_not_refused():
    rehearse("inat18", "ace", options={"head": "5000", "tail": "3000"})
    with pytest.raises(library.UsageError, match="head is -1"):
        rehearse("inat18", "ace", options={"head": "-1"})


def test_weights_of_a_run_folder_are_its_model(finished, tmp_path):
    early.check_weights(str(finished))
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(library.LongtailError, match=r"there is no file .*model\.safetensors"):
        early.check_weights(str(tmp_path / "run"))
