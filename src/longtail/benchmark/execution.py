"""Running a grid: one run after the other here, several at a time in processes of this machine, or on a Ray cluster.

A grid may be killed at any moment. What is finished has its ``metrics.json``, what is not goes on from its last state,
and a lock on the run folder, which the system lifts when its holder dies, keeps two processes from one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from longtail.benchmark.grid import Cell, Outcome, known_runtime
from longtail.benchmark.job import Job, Machine, run_job, settled_for
from longtail.data import LongTailData
from longtail.errors import LongtailError
from longtail.run import Run
from longtail.training.loop import InterruptedRunError
from longtail.training.progress import Reporter, SilentReporter
from longtail.training.runtime import Runtime, check_asked, pick_device

Watch = Callable[[Cell], AbstractContextManager[Reporter]]


class Lanes(Protocol):
    """Where runs of a grid are done side by side."""

    def free(self) -> bool:
        """Return whether one more run can begin."""

    def start(self, job: Job) -> None:
        """Begin a run."""

    def wait(self) -> list[Outcome]:
        """Wait until a run ends, for a while; return those that ended."""

    def stop(self) -> None:
        """Ask all runs to stop after their step under way."""

    def close(self) -> None:
        """Give everything back."""


def execute(
    cells: Sequence[Cell],
    data: LongTailData | None = None,
    *,
    machine: Machine | None = None,
    watch: Watch | None = None,
    lanes: Callable[[Machine], Lanes] | None = None,
    seconds: float | None = None,
) -> Iterator[Outcome]:
    """Run a grid: finished runs are kept, unfinished ones go on, and a failure does not stop the others.

    What is left open of precision, threads and compilation is settled by the first run, or before all runs where they
    go side by side, and all others take it over, those of a later call too: on a level field only the method differs.
    A run that was begun goes on as it began.

    Args:
        cells: From `longtail.benchmark.grid.plan` or `arrange`.
        data: The data set of all cells; None: each loads its own.
        machine: How to use the machine; None: all of it is found out.
        watch: Makes the context that gives the reporter of a run; only for runs in this process.
        lanes: Makes what does the runs side by side, such as `longtail.benchmark.pool.Processes`; None: one after the
            other in this process.
        seconds: Time limit; when it is over, the runs under way stop with their states on disk and no other begins.

    Yields:
        What became of each cell; those that the time limit left out are missing.

    Raises:
        InterruptedRunError: The grid was asked to stop; the states of its runs are on disk.
    """
    machine = machine or Machine()
    deadline = None if seconds is None else time.monotonic() + seconds
    if lanes is not None:
        yield from _side_by_side(cells, data, machine, lanes, deadline)
    else:
        yield from _in_turn(cells, data, machine, watch or _unwatched, deadline)


def _unwatched(cell: Cell) -> AbstractContextManager[Reporter]:
    return nullcontext(SilentReporter())


def _job(cell: Cell, machine: Machine, deadline: float | None) -> Job:
    return Job(cell, machine, None if deadline is None else time.time() + deadline - time.monotonic())


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def taken_over(cells: Sequence[Cell], machine: Machine) -> Runtime | None:
    """Return what the grid settled on in an earlier call, on the device and with the threads that are asked for now.

    Returns:
        None where no run has begun, or where the runs so far were of another kind of device, whose choices mean nothing
        on this one.

    Raises:
        UsageError: What is asked for cannot be.
    """
    check_asked("auto", machine.threads, machine.compile)
    known, device = known_runtime(cells), pick_device(machine.device)
    if known is None or torch.device(known.device).type != device.type:
        return None
    threads = known.threads if machine.threads == "auto" else int(machine.threads)
    compiled = known.compile if machine.compile == "auto" else machine.compile == "on"
    return replace(known, device=str(device), threads=threads, compile=compiled)


def _in_turn(
    cells: Sequence[Cell], data: LongTailData | None, machine: Machine, watch: Watch, deadline: float | None
) -> Iterator[Outcome]:
    machine = replace(machine, runtime=machine.runtime or taken_over(cells, machine))
    for cell in cells:
        if _is_over(deadline) and not cell.finished:
            continue
        with watch(cell) as reporter:
            outcome = run_job(_job(cell, machine, deadline), data, reporter)
        if outcome.status == "stopped":
            if _is_over(deadline):
                continue
            raise InterruptedRunError(outcome.reason)
        if machine.runtime is None and outcome.metrics is not None:
            machine = replace(machine, runtime=taken_over([cell], machine))
        yield outcome


def _side_by_side(
    cells: Sequence[Cell],
    data: LongTailData | None,
    machine: Machine,
    lanes: Callable[[Machine], Lanes],
    deadline: float | None,
) -> Iterator[Outcome]:
    yield from (kept for cell in cells if cell.finished and (kept := _kept(cell)))
    waiting = [cell for cell in cells if not cell.finished]
    if not waiting or _is_over(deadline):
        return
    settled = machine.runtime or taken_over(cells, machine) or settled_for(waiting[0], data, machine)
    machine = replace(machine, runtime=settled)
    works = lanes(machine)
    running: set[Path] = set()
    try:
        while waiting or running:
            held_up = {cell.folder for cell in waiting} | running
            for cell in [c for c in waiting if c.first_stage not in held_up]:
                if works.free() and not _is_over(deadline):
                    works.start(_job(cell, machine, deadline))
                    waiting.remove(cell)
                    running.add(cell.folder)
            if not running:
                return
            for outcome in works.wait():
                running.discard(outcome.cell.folder)
                if outcome.status != "stopped":
                    yield outcome
                elif not _is_over(deadline):  # not by us: somebody sent a signal to one of the processes
                    yield replace(outcome, status="failed", reason=f"its process was told to stop: {outcome.reason}")
    except KeyboardInterrupt as error:
        works.stop()
        raise InterruptedRunError("stopped") from error
    finally:
        works.close()


def _kept(cell: Cell) -> Outcome:
    try:
        return Outcome(cell, "kept", metrics=Run(cell.folder).metrics)
    except LongtailError as error:
        return Outcome(cell, "failed", reason=error.line)
