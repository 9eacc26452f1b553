"""`longtail report`: where the page and the figures go, and what is refused."""

from __future__ import annotations

import shutil
from xml.etree import ElementTree

import pytest


@pytest.fixture
def runs(finished, tmp_path):
    """A folder with a finished run in it."""
    shutil.copytree(finished, tmp_path / "runs" / "ce")
    return tmp_path / "runs"


def test_a_single_run_has_its_page_in_its_folder(longtail, runs):
    said = longtail("report", str(runs / "ce"))
    assert (said.status, said.out) == (0, f"{runs / 'ce' / 'report.html'}\n")
    assert (runs / "ce" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_of_runs_gives_all_that_are_finished_each_once(longtail, runs, unfinished):
    shutil.move(unfinished, runs / "stopped")
    said = longtail("report", str(runs), str(runs / "ce"), "--json", "--no-images", "--out", "page.html")
    assert said.json == {
        "path": "page.html",
        "runs": [str(runs / "ce")],
        "unfinished": [str(runs / "stopped")],
        "figures": [],
    }
    assert f"left out: {runs / 'stopped'} is not finished" in said.err


def test_a_damaged_run_is_left_out_beside_others(longtail, runs):
    shutil.copytree(runs / "ce", runs / "bad")
    (runs / "bad" / "config.yaml").write_text("a: 1")
    said = longtail("report", str(runs), "--json", "--no-images")
    assert said.json["runs"] == [str(runs / "ce")]
    assert f"left out: {runs / 'bad' / 'config.yaml'} cannot be read" in said.err
    assert longtail("report", str(runs / "bad")).status == 1


def test_figures_are_written_as_png_and_svg_and_are_the_same_again(longtail, runs, tmp_path):
    for name in ("one", "two"):
        said = longtail("report", str(runs), "--figures", name, "--json")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    wanted = {"shot-groups", "training", "classes-ce", "reliability-ce", "confusion-ce"}
    assert names == {f"{name}.{kind}" for name in wanted for kind in ("png", "svg")}
    assert {path.rsplit("/")[-1] for path in said.json["figures"]} == names
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "no run is given"),
        (["nowhere"], 1, "nowhere is not a run folder"),
        (["empty"], 1, "none that is finished lies within it"),
        (["runs/ce", "--out", "empty"], 2, "--out empty is a folder"),
        (["runs/ce", "--out", "page.png"], 2, "--out page.png ends in .png"),
        (["runs/ce", "--out", "page"], 2, "--out page ends in nothing"),
        (["runs/ce/metrics.json"], 1, "it is a file\n  name the folder that it lies in: runs/ce"),
        (["runs/ce", "--out", "none/page.html"], 2, "there is no folder none"),
        (["runs/ce", "--figures", "runs/ce/metrics.json"], 1, "the figures cannot be written"),
    ],
)
def test_what_cannot_be_done_is_told(longtail, runs, words, status, told):
    (runs.parent / "empty").mkdir()
    said = longtail("report", *words)
    assert said.status == status
    assert told in said.err
    assert len(said.err.splitlines()) <= 2


def test_an_unfinished_run_by_name_is_an_error(longtail, unfinished):
    said = longtail("report", str(unfinished))
    assert said.status == 1
    assert "is not finished" in said.err
