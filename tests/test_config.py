"""What a run's record says of the code that made it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import longtail
from longtail import config, folder, underway
from longtail.config import git_commit, provenance, read_config
from reporters import Crash


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository in which the package lies, and `git` in it."""

    def git(*words: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        run = subprocess.run(["git", "-C", str(tmp_path), *author, *words], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    git("init", "-q")
    package = tmp_path / "src" / "longtail"
    (package / "methods").mkdir(parents=True)
    for path in (tmp_path / "README.md", package / "config.py"):
        path.write_text("1")
    git("add", "README.md")
    git("commit", "-qm", "one")
    monkeypatch.setattr(config, "__file__", str(package / "config.py"))
    return git


def test_the_commit_is_that_of_the_checkout_and_of_no_other_repository(checkout, tmp_path):
    read = git_commit.__wrapped__
    assert read() is None  # as in a venv inside of somebody's project
    checkout("add", "src")
    checkout("commit", "-qm", "two")
    head = checkout("rev-parse", "HEAD")
    assert read() == head
    (tmp_path / "notes.py").write_text("")
    (tmp_path / "src" / "longtail" / "notes.txt").write_text("")
    assert read() == head
    new = tmp_path / "src" / "longtail" / "methods" / "new.py"
    new.write_text("")
    assert read() == f"{head}+changes"
    new.unlink()
    (tmp_path / "README.md").write_text("2")
    assert read() == f"{head}+changes"


def test_the_commit_is_read_when_the_code_is_imported():
    program = "from longtail import config, underway; print(config.git_commit.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "1\n"


def test_who_takes_a_run_on_is_recorded(digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    run = {"out": tmp_path / "run", **plain_run}
    for resume, commit in enumerate(("a", "b", "b", "b")):
        monkeypatch.setattr(underway, "provenance", lambda commit=commit: {**provenance(), "commit": commit})
        reporter = Crash(14 if resume == 0 else 3)  # 11 steps an epoch
        with pytest.raises(RuntimeError, match="killed"):
            longtail.train(digits, "ce", resume=resume > 0, reporter=reporter, **run)
    _, more = read_config(tmp_path / "run")
    assert more["made_by"]["commit"] == "a"
    assert [maker["commit"] for maker in more["resumed_by"]] == ["b"]
    monkeypatch.setattr(underway, "provenance", lambda: {**provenance(), "commit": "a"})
    longtail.train(digits, "ce", resume=True, **run)
    _, more = read_config(tmp_path / "run")
    assert [maker["commit"] for maker in more["resumed_by"]] == ["b", "a"]
