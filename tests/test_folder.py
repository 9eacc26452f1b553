"""Who may write into a run folder, and what is said where nobody can."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors import SafetensorError

import longtail
from longtail import folder, underway
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


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_model_that_cannot_be_written_is_told_and_written_on_resume(error, digits, plain_run, tmp_path, monkeypatch):
    def full(tensors, path):
        raise error

    run = {"out": tmp_path / "run", **plain_run}
    with monkeypatch.context() as disk:
        disk.setattr(folder, "save_file", full)
        with pytest.raises(LongtailError, match=r"(?s)No space left on device.*make room, then --resume"):
            longtail.train(digits, "ce", **run)
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert longtail.train(digits, "ce", resume=True, **run).metrics["epochs"] == 3
