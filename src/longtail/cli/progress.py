"""Live progress on stderr: a bar on a terminal, plain lines now and then elsewhere. Imports no torch."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from longtail.cli.output import is_main, note
from longtail.training.progress import SilentReporter

SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_DRAWS = 0.2
_EPOCHS_REMEMBERED = 11


class Clock:
    """Where a run is among the epochs of all its stages, and how long the rest will take.

    Args:
        stage_epochs: Epochs of each stage.
    """

    def __init__(self, stage_epochs: Sequence[int]) -> None:
        self.total = sum(stage_epochs)
        self.stages = len(stage_epochs)
        self.number = 0
        self.name = ""
        self.epochs = 0
        self.epoch = 0
        self.fraction = 0.0
        self._stage_epochs = stage_epochs
        self._seconds: deque[float] = deque(maxlen=_EPOCHS_REMEMBERED)
        self._began = time.monotonic()

    def enter(self, name: str, number: int, epochs: int) -> None:
        """Begin a stage."""
        self.name, self.number, self.epochs = name, number, epochs
        self.epoch, self.fraction = 0, 0.0
        self._began = time.monotonic()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Do a step of a 0-based epoch of the stage."""
        self.epoch, self.fraction = epoch, step / steps

    def finish_epoch(self) -> None:
        """End the epoch."""
        now = time.monotonic()
        self._seconds.append(now - self._began)
        self._began, self.epoch, self.fraction = now, self.epoch + 1, 0.0

    @property
    def done(self) -> float:
        """Epochs done over all stages."""
        return sum(self._stage_epochs[: self.number]) + self.epoch + self.fraction

    @property
    def left(self) -> str:
        """Time left, as ``m:ss`` or ``h:mm:ss``; empty before the second epoch ended (the first is always slow)."""
        if len(self._seconds) < 2:
            return ""
        later = list(self._seconds)[1:]
        seconds = round((self.total - self.done) * sum(later) / len(later))
        minutes, hours = seconds // 60 % 60, seconds // 3600
        return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"

    @property
    def place(self) -> str:
        """Stage by name, and by number where there are several."""
        return self.name if self.stages == 1 else f"stage {self.number + 1}/{self.stages} {self.name}"


class Lines:
    """Says a line after the first epoch, the last one, and others as time passes."""

    def __init__(self, stage_epochs: Sequence[int], label: str = "", opening: str = "") -> None:
        self._clock = Clock(stage_epochs)
        self._label = label
        self._opening = opening
        self._said: float | None = None

    def stage(self, name: str, number: int, stages: int, epochs: int) -> None:
        """Hear that a stage begins."""
        if self._opening:
            note(self._opening)
            self._opening = ""
        self._clock.enter(name, number, epochs)

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Hear that a step was queued."""
        self._clock.step(epoch, step, steps)

    def epoch(self, record: dict[str, Any]) -> None:
        """Hear that an epoch ended."""
        clock, now = self._clock, time.monotonic()
        clock.finish_epoch()
        is_last = clock.done >= clock.total
        if self._said is not None and not is_last and now - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = now
        left = f"  left {clock.left}" if clock.left and not is_last else ""
        note(f"{self._label}{clock.place}  epoch {clock.epoch}/{clock.epochs}  {_numbers(record)}{left}")


class Bar:
    """Draws one bar over the epochs of all stages."""

    def __init__(self, stage_epochs: Sequence[int], progress: Progress, label: str = "", opening: str = "") -> None:
        self._clock = Clock(stage_epochs)
        self._label = label
        self._opening = opening
        self._progress = progress
        self._task = progress.add_task("preparing", total=self._clock.total, numbers="", left="")
        self._drawn = 0.0
        self._numbers = ""

    def stage(self, name: str, number: int, stages: int, epochs: int) -> None:
        """Hear that a stage begins."""
        if self._opening:
            self._progress.console.print(self._opening, soft_wrap=True)
            self._opening = ""
        self._clock.enter(name, number, epochs)
        self._draw()

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Hear that a step was queued."""
        self._clock.step(epoch, step, steps)
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_DRAWS:
            self._draw()

    def epoch(self, record: dict[str, Any]) -> None:
        """Hear that an epoch ended."""
        self._clock.finish_epoch()
        self._numbers = _numbers(record)
        self._draw()

    def _draw(self) -> None:
        clock, self._drawn = self._clock, time.monotonic()
        place = f"{self._label}{clock.place} {min(clock.epoch + 1, clock.epochs)}/{clock.epochs}"
        left = f"left {clock.left}" if clock.left else ""
        self._progress.update(self._task, description=place, completed=clock.done, left=left, numbers=self._numbers)


def _numbers(record: dict[str, Any]) -> str:
    test = f"  test {record['test_top1']:.1f}" if record.get("test_top1") is not None else ""
    chosen = "".join(f"  {name} {value:g}" for name, value in record.get("chosen", {}).items())
    return f"loss {record['loss']:.4g}  {record['images_per_second']:,.0f} images/s{test}{chosen}"


@contextmanager
def shown(
    stage_epochs: Sequence[int], *, quiet: bool, label: str = "", opening: str = ""
) -> Iterator[Lines | Bar | SilentReporter]:
    """Give a reporter that fits where stderr goes.

    Args:
        stage_epochs: Epochs of each stage of the run.
        quiet: Say nothing.
        label: Before every line, such as the run's name in a grid.
        opening: Said once, when training really begins.
    """
    if quiet or not is_main():
        yield SilentReporter()
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20))
        numbers = (TextColumn("{task.fields[numbers]}"), TextColumn("{task.fields[left]}"))
        console = Console(stderr=True, markup=False, highlight=False)
        with Progress(*columns, *numbers, console=console, transient=True, refresh_per_second=4) as progress:
            yield Bar(stage_epochs, progress, label, opening)
    else:
        yield Lines(stage_epochs, label, opening)
