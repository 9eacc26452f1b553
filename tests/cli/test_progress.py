"""Progress on stderr: lines now and then, a bar on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from longtail.cli import progress
from longtail.cli.progress import Bar, Clock, Lines, shown
from longtail.training.progress import SilentReporter


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


def record(loss=1.0):
    return {"loss": loss, "images_per_second": 1234.5, "test_top1": None}


def train(reporter, stage_epochs, now, seconds, *, first=(0, 0)):
    for number, epochs in enumerate(stage_epochs):
        if number < first[0]:
            continue
        reporter.stage(f"part{number}", number, len(stage_epochs), epochs)
        for epoch in range(first[1] if number == first[0] else 0, epochs):
            now[0] += seconds
            reporter.step(epoch, 1, 1, 128)
            reporter.epoch(record())


def test_first_and_last_line_and_others_as_time_passes(now, capsys):
    train(Lines([20, 10]), [20, 10], now, seconds=1)
    lines = capsys.readouterr().err.splitlines()
    epochs = [line.split("  ")[:2] for line in lines]
    assert epochs[0] == ["stage 1/2 part0", "epoch 1/20"]
    assert epochs[-1] == ["stage 2/2 part1", "epoch 10/10"]
    assert len(lines) == 7
    assert "left 0:24" in lines[1]
    assert "left" not in lines[-1]


def test_a_line_says_what_the_stage_chose(now, capsys):
    reporter = Lines([1])
    reporter.stage("student", 0, 1, 1)
    reporter.step(0, 1, 1, 128)
    reporter.epoch({**record(), "chosen": {"temperature": 1.5, "power": 0.5}})
    assert "images/s  temperature 1.5  power 0.5" in capsys.readouterr().err


def test_quick_runs_say_two_lines(now, capsys):
    train(Lines([50], opening="begins"), [50], now, seconds=0.01)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "begins"
    assert len(lines) == 3


def test_time_left_after_a_resume(now):
    clock = Clock([10, 10])
    clock.enter("late", 1, 10)
    for epoch in (4, 5, 6):
        now[0] += 3600
        clock.step(epoch, 1, 1)
        clock.finish_epoch()
    assert clock.done == 17
    assert clock.left == "3:00:00"
    assert clock.place == "stage 2/2 late"


def test_bar(now):
    stream = io.StringIO()
    columns = [TextColumn("{task.description} {task.completed} {task.fields[numbers]} {task.fields[left]}")]
    console = Console(file=stream, force_terminal=True, width=150)
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        reporter = Bar([3], bar, label="[1/2] ", opening="begins")
        train(reporter, [3], now, seconds=2)
        bar.refresh()
    text = stream.getvalue()
    assert "begins" in text
    assert "[1/2] part0 3/3 3.0 loss 1  1,234 images/s left 0:00" in text


def test_quiet_and_other_processes_say_nothing(capsys, monkeypatch):
    with shown([1], quiet=True) as reporter:
        assert isinstance(reporter, SilentReporter)
    with shown([1], quiet=False) as reporter:
        assert isinstance(reporter, Lines)
    monkeypatch.setenv("RANK", "1")
    with shown([1], quiet=False) as reporter:
        assert isinstance(reporter, SilentReporter)
    reporter.stage("a", 0, 1, 1)
    reporter.step(0, 1, 1, 1)
    reporter.epoch(record())
    assert capsys.readouterr().err == ""


def test_terminal_gets_the_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with shown([1], quiet=False) as reporter:
        assert isinstance(reporter, Bar)
