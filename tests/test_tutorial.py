"""The tutorial's commands and Python, as they stand on the page, in order, in an empty folder."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from longtail.cli.main import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def pieces():
    """The lines of all console blocks, and whole Python blocks, in the page's order."""
    found = []
    for language, content in re.findall(r"```(console|python)\n(.*?)```", TEXT, re.DOTALL):
        found += [(language, line) for line in content.splitlines()] if language == "console" else [(language, content)]
    return found


def run_line(line, monkeypatch):
    tool, *words = shlex.split(line)
    if tool == "longtail":
        assert main(words) == 0, line
    else:
        assert tool == "python"
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def test_every_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen = pieces()
    assert {line.split()[1] for kind, line in seen if kind == "console" and line.startswith("longtail")} == {
        "inspect", "train", "evaluate", "report", "predict", "export"
    }  # fmt: skip
    for kind, content in seen:
        if kind == "console":
            run_line(content, monkeypatch)
        else:
            exec(compile(content, "tutorial.md", "exec"), {})
    said = capsys.readouterr()
    assert "skipped: new/cut-off.jpg: damaged" in said.err
    with open("answers.csv", encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == 60
    right = sum(Path(row["path"]).name.split("-")[0] == row["class"] for row in answers)
    assert right > 30  # guessing: 6
    document = json.loads(Path("answers.json").read_text(encoding="utf-8"))
    assert document["prior"] == "prior.csv"
    assert json.loads(Path("shipped/model.json").read_text(encoding="utf-8"))["class_names"][0] == "eight"
    assert Path("report.html").stat().st_size > 10_000


@pytest.mark.parametrize("page", ["estimator.md"])
def test_python_on_other_pages(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for content in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(content, page, "exec"), {})
    assert "longtailclassifier__method" in capsys.readouterr().out
