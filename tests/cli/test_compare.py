"""`longtail compare`: a grid of runs and its table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from longtail.training.loop import DivergedError, InterruptedRunError
from pictures import make_folder


def grid_words(fast, *words):
    return ["compare", "digits", "--protocol", "quick", "--epochs", "2", *fast, "--out", "grid", *words]


def test_table_files_and_a_second_call(longtail, fast, nothing_trains):
    words = grid_words(fast, "--methods", "tau-norm,bsce", "--seeds", "2")
    said = longtail(*words)
    assert said.status == 0, said
    methods = [line.split()[0] for line in said.out.splitlines() if "±" in line][1:]
    assert methods == ["ce", "tau-norm", "bsce"]
    markdown = Path("grid/comparison.md").read_text()
    assert "| method | seeds | top-1 |" in markdown
    rows = list(csv.DictReader(Path("grid/comparison.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == methods
    assert float(rows[0]["top1_gain"] or 0) == 0
    document = json.loads(Path("grid/comparison.json").read_text())
    assert [run["status"] for run in document["runs"]] == ["done"] * 6
    two_stage = json.loads(next(Path("grid").glob("*tau-norm*s1/metrics.json")).read_text())
    assert two_stage["stage1"] == str(next(Path("grid").glob("*-ce-*s1")))
    nothing_trains()
    again = longtail(*words, "--json")
    assert again.status == 0
    assert {run["status"] for run in again.json["runs"]} == {"kept"}
    assert again.json["rows"] == document["rows"]
    assert again.json["baseline"] == "ce"


def test_a_failure_is_a_row_and_status_1(longtail, fast, train_fails):
    diverged = DivergedError("the loss became nan in epoch 1", fix="try a smaller --lr")
    train_fails({"bsce": diverged, "la": RuntimeError("out of memory\nand so on")})
    said = longtail(*grid_words(fast, "--methods", "bsce,la", "--seeds", "1", "--json"))
    assert said.status == 1
    rows = {row["method"]: row for row in said.json["rows"]}
    assert rows["ce"]["top1"]["mean"] > 0
    assert rows["bsce"]["top1"] is None
    assert rows["bsce"]["failures"] == ["seed 0: the loss became nan in epoch 1; try a smaller --lr"]
    (reason,) = rows["la"]["failures"]
    path = Path("grid/digits-if50-la-quick-s0/error.txt")
    assert reason == f"seed 0: RuntimeError: out of memory (traceback in {path})"
    assert path.read_text().startswith("Traceback")
    people = longtail(*grid_words(fast, "--methods", "bsce", "--seeds", "1"))
    assert "bsce failed, seed 0: the loss became nan in epoch 1" in people.out
    assert "[1/2] ce seed 0: kept" in people.err


def test_stopping_keeps_what_is_done(longtail, fast, train_fails):
    train_fails({"bsce": InterruptedRunError("stopped in stage 1, epoch 2")})
    said = longtail(*grid_words(fast, "--methods", "bsce", "--seeds", "1"))
    assert said.status == 1
    assert "1 of 2 runs are done" in said.err
    assert "give the same command again to go on" in said.err
    assert [run["method"] for run in json.loads(Path("grid/comparison.json").read_text())["runs"]] == ["ce"]


def test_wrong_input_is_found_before_any_training(longtail, fast):
    for words, told in (
        (["--methods", "ce,focl"], "unknown method 'focl'"),
        (["--methods", "ce,crt+drw"], "+drw does not fit"),
        (["--methods", " , "], "--methods is empty"),
        (["--seeds", "0"], "seeds is 0"),
        (["--methods", "ce", "--max-m", "1"], "unknown option '--max-m'"),
        (["--methods", "la", "--ldam.max-m", "1"], "option --ldam.max-m is for 'ldam', which is no part of 'ce', 'la'"),
        (["--protocol", "quik"], "unknown protocol 'quik'"),
    ):
        said = longtail(*grid_words(fast), *words)
        assert said.status == 2, words
        assert told in said.err
        assert len(said.err.splitlines()) <= 2
    assert not Path("grid").exists()


def test_a_misspelt_flag_is_found_before_the_data_are_read(longtail):
    said = longtail("compare", ".", "--method", "ce")  # an empty folder
    assert said.status == 2
    assert "unknown option '--method'\n" in said.err
    assert "did you mean --methods" in said.err


def test_folder_of_another_grid(longtail, fast):
    assert longtail(*grid_words(fast, "--methods", "ce", "--seeds", "1", "--quiet")).status == 0
    said = longtail(*grid_words(fast, "--methods", "ce", "--seeds", "1", "--lr", "0.01"))
    assert said.status == 2
    assert "lr 0.01 here" in said.err


def test_unwritable_folder(longtail, fast):
    Path("grid").write_text("in the way")
    said = longtail(*grid_words(fast, "--methods", "ce", "--seeds", "1"))
    assert said.status == 1
    assert "cannot be written" in said.err


@pytest.mark.parametrize(("verb", "words"), [("compare", ("--methods", "ce", "--seeds", "1")), ("decouple", ())])
def test_the_usual_folder_is_named_after_the_data_set(longtail, fast, tmp_path, monkeypatch, verb, words):
    make_folder(tmp_path / "photos.v2", {"red": 6, "green": 5})
    monkeypatch.setattr(f"longtail.cli.{verb}.run_all", lambda *args, **keywords: [])
    assert longtail(verb, "photos.v2", *words, *fast, "--json").json["out"] == f"runs/{verb}-photos.v2"


@pytest.mark.parametrize("words", [("photos", "--out", "photos/grid"), ("photos", "--out", "photos"), (".",)])
@pytest.mark.parametrize("verb", ["compare", "decouple"])
def test_a_grid_within_the_images_is_refused(longtail, fast, tmp_path, monkeypatch, verb, words):
    make_folder(tmp_path / "photos", {"red": 6, "green": 5})
    if words == (".",):
        monkeypatch.chdir(tmp_path / "photos")
    said = longtail(verb, *words, *fast)
    assert said.status == 2, said
    assert "would be taken for a class\n  --out ELSEWHERE\n" in said.err
