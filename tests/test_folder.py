"""Who may write into a run folder, and what is said where nobody can."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import longtail
from longtail import files, folder, underway
from longtail.errors import LongtailError, UsageError
from longtail.folder import alone
from longtail.training.progress import SilentReporter
from reporters import Crash


class Meanwhile(SilentReporter):
    """Does something in another thread after the first epoch, and keeps the error that this raises."""

    def __init__(self, work) -> None:
        self.work, self.error = work, None

    def epoch(self, record) -> None:
        if self.error is None:
            with ThreadPoolExecutor() as other:
                self.error = other.submit(self.work).exception()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_is_held_by_one_process_until_that_dies(tmp_path, monkeypatch):
    child = os.fork()
    if child == 0:
        with alone(tmp_path / "run"):
            (tmp_path / "held").touch()
            time.sleep(100)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(LongtailError, match="another process trains in"), alone(tmp_path / "run", patience=0.2):
        pass
    threading.Timer(0.2, os.kill, (child, signal.SIGKILL)).start()
    with alone(tmp_path / "run", patience=30), alone(tmp_path / "run"):
        os.waitpid(child, 0)
        with ThreadPoolExecutor() as other:
            assert isinstance(other.submit(alone(tmp_path / "run").__enter__).exception(), LongtailError)
    monkeypatch.setenv("RANK", "1")
    with alone(tmp_path / "run"), alone(tmp_path / "run"):
        pass


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_is_not_resumed_while_it_is_under_way(begun, digits, plain_run, tmp_path):
    """Whether the first one is new or itself resumed."""
    run = {"out": tmp_path / "run", **plain_run}
    if begun:
        with pytest.raises(RuntimeError, match="killed"):
            longtail.train(digits, "ce", reporter=Crash(22), **run)
    reporter = Meanwhile(lambda: longtail.train(digits, "ce", resume=True, **run))
    first = longtail.train(digits, "ce", resume=begun, reporter=reporter, **run)
    assert f"another process trains in {tmp_path / 'run'}" in str(reporter.error)
    assert [record["epoch"] for record in first.history] == [1, 2, 3]


def test_of_two_that_begin_at_once_the_second_is_refused(digits, plain_run, tmp_path, monkeypatch):
    settle, asked = underway.settle, []

    def settle_while_another_trains(*args, **keywords):
        asked.append(1)
        if len(asked) == 1:
            longtail.train(digits, "ce", out=tmp_path / "run", **plain_run)
        return settle(*args, **keywords)

    monkeypatch.setattr(underway, "settle", settle_while_another_trains)
    with pytest.raises(UsageError, match="another process has begun a run in"):
        longtail.train(digits, "ce", out=tmp_path / "run", **plain_run)
    assert len(longtail.load(tmp_path / "run").history) == 3
    assert longtail.train(digits, "ce", out=tmp_path / "run", resume=True, **plain_run).metrics["epochs"] == 3


def full_disk(monkeypatch, *names):
    """No file of these names can be written any more."""
    real = files.os.replace

    def replace(self, target):
        if target.name in names:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, target)
        return target

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("name", [folder.MODEL_NAME, folder.LOGITS_NAME, "metrics.json"])
def test_results_that_cannot_be_written_are_told_and_written_on_resume(name, digits, plain_run, tmp_path, monkeypatch):
    run = {"out": tmp_path / "run", **plain_run}
    with monkeypatch.context() as disk:
        full_disk(disk, name)
        with pytest.raises(LongtailError, match=r"(?s)No space left on device.*make room, then --resume"):
            longtail.train(digits, "ce", **run)
    assert not (tmp_path / "run" / name).exists()
    assert not list((tmp_path / "run").glob("*.part"))
    assert longtail.train(digits, "ce", resume=True, **run).metrics["epochs"] == 3


def interrupt(descriptor):
    raise KeyboardInterrupt


def test_a_result_that_is_written_again_appears_whole_or_not_at_all(digits, plain_run, tmp_path, monkeypatch):
    """The run counts as finished by then, so that nobody would write half a model once more."""
    run = {"out": tmp_path / "run", **plain_run}
    trained = longtail.train(digits, "ce", **run)
    (tmp_path / "run" / folder.MODEL_NAME).unlink()
    with monkeypatch.context() as killed:
        killed.setattr(files.os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            folder.RunFolder(tmp_path / "run").write_results({"x": torch.zeros(2)}, {}, trained.metrics)
    assert not (tmp_path / "run" / folder.MODEL_NAME).exists()


def test_a_history_that_cannot_be_written_is_told_and_written_on_resume(digits, plain_run, tmp_path, monkeypatch):
    run, real = {"out": tmp_path / "run", **plain_run}, Path.open

    def full(self, mode="r", **keywords):
        if self.name == "history.jsonl" and mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, **keywords)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", full)
        with pytest.raises(LongtailError, match=r"history.jsonl could not be written: No space left on device") as told:
            longtail.train(digits, "ce", **run)
    assert "then resume" in told.value.fix
    assert len(longtail.train(digits, "ce", resume=True, **run).history) == 3


def no_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


def test_where_links_are_missing_a_kept_state_is_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    kept = folder.RunFolder(tmp_path)
    kept.save_state({"n": 1})
    kept.keep_state(1)
    assert (tmp_path / "stage-1.pt").read_bytes() == (tmp_path / "state.pt").read_bytes()


def test_a_state_that_cannot_be_kept_costs_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    kept = folder.RunFolder(tmp_path)
    kept.save_state({"n": 1})
    full_disk(monkeypatch, "stage-1.pt")
    with pytest.warns(RuntimeWarning, match=r"stage-1.pt is not kept .* No space left on device"):
        kept.keep_state(1)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
