"""`longtail reproduce`: a plan, a grid, a table. Training is on digits, of which a made-up table tells."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
from pathlib import Path

import pytest

from longtail.benchmark import published
from longtail.benchmark.published import Published, Row, Table
from longtail.cli.grid import duration
from longtail.errors import UsageError


def row(label: str, method: str, value: float, note: str = "") -> Row:
    number = Published(
        method, "digits", 50.0, "error", 100 - value, "a paper", note, printed=value, table="made-up", row=label
    )
    return Row(label, method, (), "a paper", note, {"IF50": number})


@pytest.fixture
def words(monkeypatch, fast) -> tuple[str, ...]:
    """Words that reproduce a table of digits; CIFAR is not there in a test."""
    rows = (row("CE [1]", "ce", 8.0), row("Balanced", "bsce", 6.0, "their run"), row("Later", "not-yet", 5.0))
    table = Table("made-up", "A made-up table", "a paper", "", ("IF50",), rows)
    monkeypatch.setattr(published, "table", lambda name: table)
    return ("reproduce", "made-up", "--protocol", "quick", "--seeds", "2", "--epochs", "2", *fast, "--out", "out")


def test_dry_run_of_a_published_table(longtail):
    said = longtail("reproduce", "deck-003-cifar100", "--dry-run", "--no-measure", "--seeds", "2", "--json")
    assert said.status == 0
    assert {run["imbalance"] for run in said.json["runs"]} == {50, 100, 200}
    assert {run["seed"] for run in said.json["runs"]} == {0, 1}
    methods = {run["method"] for run in said.json["runs"]}
    assert {"ce+mixup", "crt+h2t", "gcl+h2t", "ride"} <= methods
    assert all(run["epochs"] >= 200 for run in said.json["runs"])
    assert {"row": "ABL* (Jin et al. 2023)", "column": "IF100", "reason": "abl not implemented"} in said.json["not_run"]
    people = longtail(
        "reproduce", "deck-003-cifar100", "--dry-run", "--no-measure", "--seeds", "1", "--imbalance", "50"
    )
    assert "cifar100-if50-crt+h2t-published-s0" in people.out
    assert "run folder" in people.out
    assert "time" not in people.out
    assert not Path("runs").exists()


def test_dry_run_without_the_data_says_a_shared_reason_once(longtail, monkeypatch, tmp_path):
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path / "nowhere"))
    said = longtail("reproduce", "deck-003-imagenet-lt", "--dry-run", "--no-measure", "--methods", "ce+cmo,ride,reslt")
    assert said.status == 0
    assert said.out.count("no ImageNet_LT_train.txt in") == 1
    (line,) = (line for line in said.out.splitlines() if "no ImageNet_LT_train.txt in" in line)
    assert line.startswith("not run, 3 rows: imagenet-lt: ")
    assert line.endswith(": CE+CMO* (Park et al. 2022), RIDE (Wang et al. 2021b), ResLT (Cui et al. 2023)")
    assert "run folder" not in said.out
    assert "0 runs, 0 done" in said.out


def test_dry_run_measures(longtail, words):
    said = longtail(*words, "--dry-run", "--json")
    assert said.status == 0
    assert len(said.json["runs"]) == 4
    assert all(run["seconds"] > 0 for run in said.json["runs"])
    people = longtail(*words, "--dry-run")
    assert "4 runs, 0 done; about " in people.out
    assert "measuring plain training of small on digits" in people.err
    assert "what each method's card says" in people.out


def test_the_table_the_files_and_a_second_call(longtail, words, nothing_trains):
    said = longtail(*words)
    assert said.status == 0, said
    assert "94 / " in said.out
    assert "Later: not run: not-yet not implemented" in said.out
    assert "Ours has another budget" in said.out
    files = {path.name for path in Path("out").iterdir() if path.is_file()}
    assert files == {f"made-up.{suffix}" for suffix in ("md", "csv", "tex", "html", "json")}
    lines = list(csv.DictReader(Path("out/made-up.csv").read_text().splitlines()))
    assert [line["seeds"] for line in lines] == ["0 1", "0 1", ""]
    document = json.loads(Path("out/made-up.json").read_text())
    assert document["rows"][0]["difference"] == pytest.approx(document["rows"][0]["ours"] - 92.0)
    nothing_trains()
    again = longtail(*words, "--json")
    assert again.status == 0
    assert {run["status"] for run in again.json["runs"]} == {"kept"}
    assert again.json["left"] == 0
    assert again.json["rows"] == document["rows"]


def test_a_time_limit_leaves_the_rest_for_the_next_call(longtail, words):
    longer = [word if word != "2" or words[n - 1] != "--epochs" else "9999" for n, word in enumerate(words)]
    said = longtail(*longer, "--time-limit", "1s", "--json")
    assert said.status == 1
    assert said.json["left"] == 4
    assert "the time is up; 0 of 4 runs are done; give the same command again" in said.err
    assert list(Path("out").glob("*/state.pt"))


def test_a_failure_is_a_row_and_status_1(longtail, words, train_fails):
    train_fails({"bsce": RuntimeError("out of memory")})
    said = longtail(*words)
    assert said.status == 1
    assert "bsce seed 1 failed, RuntimeError: out of memory" in said.out
    assert json.loads(Path("out/made-up.json").read_text())["rows"][0]["seeds"] == [0, 1]


def test_tables_are_listed(longtail):
    said = longtail("reproduce")
    assert "deck-002-cifar100" in said.out
    assert {table["table"] for table in longtail("reproduce", "--json").json} == set(published.names())


def test_wrong_use(longtail):
    for wrong, told in (
        (["deck-003-cifar10"], "deck-003-cifar100"),
        (["deck-003-cifar100", "--seeds", "0"], "seeds is 0"),
        (["deck-003-cifar100", "--jobs", "0"], "jobs is 0"),
        (["deck-003-cifar100", "--time-limit", "soon"], "time limit 'soon'"),
        (["deck-003-cifar100", "--methods", "bsec"], "did you mean bsce"),
        (["deck-003-cifar100", "--methods", "seql"], "no number of deck-003-cifar100 fits"),
        (["deck-003-cifar100", "--lr", "1"], "unknown option '--lr'"),
    ):
        said = longtail("reproduce", *wrong)
        assert said.status == 2, wrong
        assert told in said.err
        assert len(said.err.splitlines()) <= 2


def test_missing_data_is_found_before_any_run(longtail, fast, monkeypatch, tmp_path):
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path / "nowhere"))
    said = longtail("reproduce", "deck-003-cifar100", "--methods", "ce+mixup", "--seeds", "1", *fast)
    assert said.status == 1
    assert "cifar100" in said.err


def test_durations():
    assert [duration(text) for text in ("9m", "1h30m", "90s", "90", "2h5s")] == [540, 5400, 90, 90, 7205]
    for text in ("", "m", "0s", "-5m", "1.5h", "h9"):
        with pytest.raises(UsageError, match="is no time"):
            duration(text)


def test_how_a_grid_is_spread(longtail, monkeypatch):
    import torch

    from longtail.cli.grid import Spread

    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert Spread(jobs=4).share("cpu", "auto", "off").threads == 2
    assert Spread(jobs=4).share("cpu", "3", "off").threads == "3"
    assert Spread().share("cpu", "auto", "off").threads == "auto"
    assert Spread().lanes() is None
    if importlib.util.find_spec("ray") is None:
        said = longtail("compare", "digits", "--ray", "local")
        assert (said.status, "pip install 'longtail[ray]'" in said.err) == (2, True)
    with monkeypatch.context() as on_windows:
        on_windows.delattr(os, "setpgrp")
        said = longtail("compare", "digits", "--jobs", "2")
        assert (said.status, "--jobs needs signals and process groups" in said.err) == (2, True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for flags in ((), ("--jobs", "2")):
        said = longtail("compare", "digits", *flags)
        assert (said.status, "torchrun gives all its processes to one run" in said.err) == (2, True)
