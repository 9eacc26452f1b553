"""`longtail figure`: each picture from tiny runs, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from longtail import Run, report
from longtail.cli.figure import NAMES
from longtail.cli.figures import KINDS
from longtail.cli.main import main
from pictures import make_folder

FAST = ("--precision", "fp32", "--threads", "1", "--compile", "off", "--device", "cpu", "--quiet")
RUNS = {
    "mix": ("ce+mixup", {}),
    "half": ("crt+h2t", {"p": 0.5}),
    "none": ("crt+h2t", {"p": 0.0}),
    "mislas": ("mislas", {}),
    "ncm": ("ncm", {}),
    "ride": ("ride", {}),
    "fused": ("ride+h2t", {}),
    "routed": ("ride+ea", {}),
    "other": ("crt+h2t", {"imbalance": 10}),
    "fast": ("ce+mixup", {"lr": 0.5}),
    "quick": ("ce+mixup", {"protocol": "quick"}),
    "long": ("ce+mixup", {"epochs": 4}),
    "seed": ("ce+mixup", {"seed": 1}),
    "steep": ("crt+h2t", {"p": 0.0, "lr": 0.5}),
    "again": ("ce+mixup", {}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of three epochs or so by name; not to be written to."""
    out = tmp_path_factory.mktemp("runs")
    for name, (method, options) in RUNS.items():
        words = [word for key, value in {"epochs": 3, **options}.items() for word in (f"--{key}", str(value))]
        folder = out / name
        assert main(["train", "digits", "--method", method, *words, *FAST, "--out", str(folder)]) == 0
    return {name: str(out / name) for name in RUNS}


PICTURES = [
    ("ratio", ("none", "half"), ()),
    ("boundary", ("mislas",), ()),
    ("boundary", ("none", "half"), ("--classes", "0,8")),
    ("boundary", ("ride", "fused"), ("--expert", "2")),
    ("boundary", ("routed",), ()),
    ("forces", ("none", "half"), ()),
    ("forces", ("mix",), ("--p", "0.25")),
    ("forces", ("fused",), ("--expert", "3")),
    ("experts", ("ride",), ()),
    ("groups", ("mix", "half", "ride"), ()),
    ("gain", ("half", "mix"), ()),
    ("virtual", ("mix", "ride", "other"), ("--temperature", "3")),
]


@pytest.mark.parametrize(("name", "of", "words"), PICTURES)
def test_each_picture_is_drawn(longtail, runs, name, of, words, tmp_path):
    out = tmp_path / f"{name}.png"
    said = longtail("figure", name, *(runs[key] for key in of), *words, "--out", str(out), "--json")
    assert said.status == 0, said
    assert said.json == {"figure": name, "runs": [runs[key] for key in of], "path": str(out)}
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.stat().st_size > 5000


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_the_ending_says_the_format(longtail, runs, ending, start, tmp_path):
    said = longtail("figure", "groups", runs["mix"], "--out", f"bars.{ending}")
    assert (said.status, said.out) == (0, f"bars.{ending}\n")
    assert (tmp_path / f"bars.{ending}").read_bytes().startswith(start)


def test_without_a_file_it_is_named_after_the_picture(longtail, runs, tmp_path):
    assert longtail("figure", "groups", runs["mix"]).status == 0
    assert (tmp_path / "groups.png").exists()


def test_the_two_lists_of_pictures_are_one_and_the_help_names_them(longtail):
    assert tuple(KINDS) == NAMES
    help_text = longtail("figure", "--help").out
    assert all(f"{name}:" in help_text for name in NAMES)
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in NAMES)


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (("rato", "none"), 2, "did you mean ratio"),
        (("ratio", "half"), 2, "takes 2 or more run folder(s), and got 1"),
        (("experts", "ride", "fused"), 2, "takes 1 run folder(s), and got 2"),
        (("boundary", "none", "half", "mislas"), 2, "takes 1 to 2 run folder(s), and got 3"),
        (("ratio", "half", "mix"), 2, "without +h2t"),
        (("ratio", "half", "fused"), 2, "several methods"),
        (("ratio", "half", "other"), 2, "trained on another set"),
        (("boundary", "half", "other"), 2, "trained on another set"),
        (("groups", "half", "other"), 2, "trained on another set"),
        (("groups", "mix", "quick"), 2, "has protocol quick"),
        (("gain", "half", "long"), 2, "has epochs 4"),
        (("groups", "mix", "again"), 2, "of one seed, 0"),
        (("gain", "half", "mix", "again"), 2, "of one seed, 0"),
        (("gain", "half", "mix", "fast"), 2, "differ in more than their seed: ce+mixup (lr 0.1) and ce+mixup (lr 0.5)"),
        (("ratio", "half", "steep"), 2, "differ in more than p and seed"),
        (("boundary", "ncm"), 2, "not linear in the features"),
        (("boundary", "half", "--expert", "2"), 2, "there is no expert 2"),
        (("boundary", "half", "--classes", "0"), 2, "takes two classes"),
        (("boundary", "half", "--classes", "0,0"), 2, "twice"),
        (("boundary", "half", "--classes", "0,ten"), 2, "no class 'ten'"),
        (("forces", "mix"), 2, "without +h2t"),
        (("forces", "mix", "--p", "2"), 2, "between 0 and 1"),
        (("experts", "half"), 2, "no experts to compare\n  name a run that has several"),
        (("experts", "routed"), 2, "without +ea"),
        (("gain", "half", "none"), 2, "compares two methods"),
        (("gain", "half", "mix", "ride"), 2, "compares two methods"),
        (("groups", "half", "--out", "bars.gif"), 2, "must end in .png, .svg, .pdf"),
        (("groups", "half", "--out", "bars"), 2, "ends in nothing"),
        (("groups", "half", "--out", "no/bars.png"), 2, "there is no folder no"),
        (("groups", "nowhere"), 1, "is not a run folder"),
        (("groups", "half", "--dpi", "3"), 2, "unknown option"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(longtail, runs, words, status, reason):
    name, *rest = words
    said = longtail("figure", name, *(runs.get(word, word) for word in rest))
    assert said.status == status, said
    assert reason in said.err
    assert len(said.err.splitlines()) <= 2


def test_an_unfinished_run_is_named(longtail, unfinished):
    said = longtail("figure", "groups", str(unfinished))
    assert said.status == 1
    assert "is not finished" in said.err


def test_only_seeds_of_one_configuration_are_averaged(longtail, runs, monkeypatch):
    drawn = []
    bars = report.shot_group_bars
    monkeypatch.setattr(report, "shot_group_bars", lambda rows: drawn.append(rows) or bars(rows))
    assert longtail("figure", "groups", *(runs[name] for name in ("mix", "fast", "seed"))).status == 0
    base = f"{Run(runs['mix']).config.budget['lr']}"
    assert [row["method"] for row in drawn[0]] == [f"ce+mixup (lr {lr})" for lr in (base, 0.5, base)]


def test_the_boundary_is_that_of_a_rare_class_with_test_images(longtail, fast, tmp_path):
    make_folder(tmp_path / "photos", {"red": 12, "green": 8, "once": 1})
    words = ("--method", "ce", "--epochs", "1", "--backbone", "small", *fast)
    assert longtail("train", "photos", *words, "--out", "run").status == 0
    said = longtail("figure", "boundary", "run")
    assert said.status == 0, said
    said = longtail("figure", "boundary", "run", "--classes", "red,once")
    assert said.status == 2
    assert "class 'once' of photos has no test image" in said.err
    assert "--classes HEAD,TAIL" in said.err


def test_a_folder_of_runs_gives_its_runs_and_files_beside_them_are_left_out(longtail, runs, tmp_path):
    for name in ("half", "mix"):
        shutil.copytree(runs[name], tmp_path / "grid" / name)
    (tmp_path / "grid" / "comparison.csv").write_text("method\n")
    within = [str(Path("grid") / name) for name in ("half", "mix")]
    assert longtail("figure", "groups", "grid", "--json").json["runs"] == within
    said = longtail("figure", "gain", *within, "grid/comparison.csv", "--json")
    assert said.json["runs"] == within
    assert "left out: grid/comparison.csv is a file" in said.err
    assert longtail("figure", "groups", "grid/comparison.csv").status == 1
