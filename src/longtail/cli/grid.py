"""What `compare` and `reproduce` share: the flags that spread a grid over the machine, and the loop over its runs."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.cli.output import note
from longtail.cli.progress import shown
from longtail.cli.setup import Unset
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.benchmark.execution import Lanes
    from longtail.benchmark.grid import Cell, Outcome
    from longtail.benchmark.job import Machine
    from longtail.data import LongTailData
    from longtail.training.progress import Reporter


@dataclass(frozen=True)
class Spread:
    """How the runs of a grid share machine and time."""

    jobs: int = 1
    """Runs side by side, each in a process of its own with its share of the threads; several may share a GPU"""
    ray: Unset[str] = None
    """Do the runs on the Ray cluster at this address (extra ray); auto finds one, local starts one here"""
    time_limit: Unset[str] = None
    """Stop cleanly after this time, such as 9m or 1h30m; the same command goes on"""

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: A flag is wrong.
        """
        if self.jobs < 1:
            raise UsageError(f"jobs is {self.jobs}; it must be at least 1")
        if self.jobs > 1 and self.ray is None and not hasattr(os, "setpgrp"):
            raise UsageError("--jobs needs signals and process groups, which Windows lacks", fix="leave --jobs out")
        if self.ray is not None and importlib.util.find_spec("ray") is None:
            raise UsageError("--ray needs Ray, which is not installed", fix="pip install 'longtail[ray]'")
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            raise UsageError(
                "torchrun gives all its processes to one run, and this is many runs",
                fix="leave torchrun out; --jobs N gives N GPUs a run each",
            )
        self.seconds()

    def seconds(self) -> float | None:
        """Return the time limit in seconds.

        Raises:
            UsageError: It is no time.
        """
        return None if self.time_limit is None else duration(self.time_limit)

    def share(self, device: str, threads: str, compile: str, track: str | None = None) -> Machine:
        """Return how each run uses the machine, given how all of it may be used, and who hears of the runs."""
        from longtail.benchmark.job import Machine
        from longtail.benchmark.pool import threads_of_each

        share = threads_of_each(self.jobs) if threads == "auto" and self.jobs > 1 else threads
        return Machine(device, share, compile, track=track)

    def lanes(self) -> Callable[[Machine], Lanes] | None:
        """Return what does runs side by side; None for one after the other."""
        if self.ray is not None:
            from longtail.benchmark.cluster import tasks

            return tasks(self.ray, self.jobs)
        if self.jobs == 1:
            return None
        from longtail.benchmark.pool import processes

        return processes(self.jobs)


def duration(text: str) -> float:
    """Return the seconds of ``9m``, ``1h30m``, ``90s`` or ``90``.

    Raises:
        UsageError: The text is none of these.
    """
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    seconds = sum(int(n or 0) * unit for n, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0
    if seconds <= 0:
        raise UsageError(f"time limit {text!r} is no time", fix="write 90s, 9m or 1h30m")
    return float(seconds)


def place(out: str | None, verb: str, data: LongTailData) -> Path:
    """Return the folder of a grid: the one that was asked for, or one under runs/ named after the data set."""
    return Path("runs") / f"{verb}-{data.name}" if out is None else Path(out)


def run_all(
    cells: Sequence[Cell],
    data: LongTailData | None,
    spread: Spread,
    machine: Machine,
    *,
    quiet: bool,
    heard: Callable[[list[Outcome]], Any],
) -> list[Outcome]:
    """Run a grid and tell of it.

    Args:
        cells: The runs.
        data: Their data set; None: each loads its own.
        spread: How they share machine and time.
        machine: How each uses the machine.
        quiet: Show no progress.
        heard: Called with all outcomes so far after each run.

    Returns:
        The outcomes in the order of the cells. Some are missing where the time was up; a line has said so.

    Raises:
        LongtailError: The grid was asked to stop.
    """
    from longtail.benchmark.execution import execute
    from longtail.training.loop import InterruptedRunError

    outcomes: list[Outcome] = []

    def watch(cell: Cell) -> AbstractContextManager[Reporter]:
        label = f"[{len(outcomes) + 1}/{len(cells)}] {cell.name}: "
        return shown(cell.stage_epochs, quiet=quiet or cell.finished, label=label)

    place = {cell.folder: number for number, cell in enumerate(cells)}
    again = "give the same command again to go on"
    try:
        limits: dict[str, Any] = {"lanes": spread.lanes(), "seconds": spread.seconds()}
        for outcome in execute(cells, data, machine=machine, watch=watch, **limits):
            outcomes.append(outcome)
            if not quiet:
                note(_line(outcome, len(outcomes), len(cells)))
            outcomes.sort(key=lambda each: place[each.cell.folder])
            heard(outcomes)
    except (InterruptedRunError, KeyboardInterrupt) as stop:
        raise LongtailError(f"stopped; {len(outcomes)} of {len(cells)} runs are done", fix=again) from stop
    if len(outcomes) < len(cells):
        note(f"the time is up; {len(outcomes)} of {len(cells)} runs are done; {again}")
    return outcomes


def status(outcomes: Sequence[Outcome], cells: Sequence[Cell]) -> int:
    """Return the exit status: 0 where every run is done, 1 where one failed or is still to do."""
    return int(len(outcomes) < len(cells) or any(outcome.status == "failed" for outcome in outcomes))


def as_plain(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain values."""
    config = outcome.cell.config
    place = {"method": config.method, "seed": config.seed, "path": str(outcome.cell.folder)}
    return {**place, "status": outcome.status, "reason": outcome.reason}


def _line(outcome: Outcome, number: int, cells: int) -> str:
    ended = outcome.reason if outcome.metrics is None else f"top-1 {outcome.metrics['top1']:.1f}"
    return f"[{number}/{cells}] {outcome.cell.name}: {outcome.status}, {ended}"
