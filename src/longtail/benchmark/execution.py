"""Running a grid: one run after the other here, several at a time in processes of this machine, or on a Ray cluster.

A grid may be killed at any moment. What is finished has its ``metrics.json``, what is not goes on from its last state,
and a lock on the run folder, which the system lifts when its holder dies, keeps two processes from one run.
"""

from __future__ import annotations

import fcntl
import inspect
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch

from longtail import session
from longtail.benchmark.grid import Cell, Outcome, Source, known_runtime, task_of
from longtail.config import RunConfig
from longtail.data import LongTailData
from longtail.errors import LongtailError
from longtail.request import build_recipe, build_run_network
from longtail.run import Run
from longtail.training.loop import InterruptedRunError
from longtail.training.progress import Reporter, SilentReporter
from longtail.training.runtime import Runtime, pick_device, settle
from longtail.training.stop import time_limit

LOCK_SECONDS = 60.0
"""How long a run waits for another process to leave its folder; one that was told to stop leaves after a step."""
_POLL_SECONDS = 0.2
_PARAMETERS = inspect.signature(session.train).parameters.values()
_NAMED = {parameter.name for parameter in _PARAMETERS if parameter.kind is parameter.KEYWORD_ONLY}

_ASKED = ({f.name for f in fields(RunConfig)} & inspect.signature(session.train).parameters.keys()) - {"method"}
"""What a run's configuration says and `longtail.train` asks under the same name."""

Watch = Callable[[Cell], AbstractContextManager[Reporter]]


@dataclass(frozen=True)
class Machine:
    """How the machine is used.

    Attributes:
        device: As for `longtail.train`.
        threads: As for `longtail.train`.
        compile: As for `longtail.train`.
        runtime: Settled choices that go before all of these; None: settle what is open.
    """

    device: str = "auto"
    threads: str | int = "auto"
    compile: str = "auto"
    runtime: Runtime | None = None


@dataclass(frozen=True)
class Job:
    """What a process needs to do a run.

    Attributes:
        cell: The run.
        machine: How to use the machine.
        seconds: Time until it shall stop with its state on disk; None for all the time.
    """

    cell: Cell
    machine: Machine
    seconds: float | None = None


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
    go side by side, and all others take it over: on a level field only the method differs.

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


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _in_turn(
    cells: Sequence[Cell], data: LongTailData | None, machine: Machine, watch: Watch, deadline: float | None
) -> Iterator[Outcome]:
    machine = replace(machine, runtime=machine.runtime or known_runtime(c for c in cells if c.finished))
    for cell in cells:
        if _is_over(deadline) and not cell.finished:
            continue
        with watch(cell) as reporter:
            outcome = run_job(Job(cell, machine, _left(deadline)), data, reporter)
        if outcome.status == "stopped":
            if _is_over(deadline):
                continue
            raise InterruptedRunError(outcome.reason)
        if machine.runtime is None and outcome.metrics is not None:
            machine = replace(machine, runtime=Run(cell.folder).runtime)
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
    settled = machine.runtime or known_runtime(cells) or settled_for(waiting[0], data, machine)
    machine = replace(machine, runtime=settled)
    works = lanes(machine)
    running: set[Path] = set()
    try:
        while waiting or running:
            held_up = {cell.folder for cell in waiting} | running
            for cell in [c for c in waiting if c.first_stage not in held_up]:
                if works.free() and not _is_over(deadline):
                    works.start(Job(cell, machine, _left(deadline)))
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
        return Outcome(cell, "failed", reason=error.message)


def settled_for(cell: Cell, data: LongTailData | None, machine: Machine) -> Runtime:
    """Settle what is left open by timing a few steps of a cell's network, as its run itself would do."""
    data = data or cell.source.load()
    config = cell.config
    task = task_of(config, data)
    device = pick_device(machine.device)
    network = build_run_network(config, task, build_recipe(config, task)).to(device)
    return settle(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        task.input_shape,
        device=device,
        precision=config.precision,
        threads=machine.threads,
        compile=machine.compile,
        total_images=0 if config.freeze_backbone else len(data.train) * config.budget["epochs"],
    )


def run_job(job: Job, data: LongTailData | None = None, reporter: Reporter | None = None) -> Outcome:
    """Do a run, or what is left of it; whatever goes wrong is its outcome."""
    cell = job.cell
    try:
        with alone(cell.folder), time_limit(job.seconds):
            kept = cell.finished
            run = _train(cell, data or _loaded(cell.source), reporter or SilentReporter(), job.machine)
            return Outcome(cell, "kept" if kept else "done", metrics=run.metrics)
    except InterruptedRunError as stop:
        return Outcome(cell, "stopped", reason=stop.message)
    except LongtailError as error:
        return Outcome(cell, "failed", reason=error.message)
    except Exception as error:  # a long grid must survive whatever one method does
        return Outcome(cell, "failed", reason=f"{type(error).__name__}: {error}")


@lru_cache(maxsize=2)
def _loaded(source: Source) -> LongTailData:
    return source.load()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run folder against other processes inside the block; of the processes of torchrun, the first one does it.

    Raises:
        LongtailError: Another process holds it and does not leave, or the folder cannot be made.
    """
    if os.environ.get("RANK", "0") not in ("", "0"):
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w", encoding="utf-8")
    except OSError as error:
        raise LongtailError(f"the run folder {folder} cannot be written: {error.strerror}") from error
    with file:
        give_up = time.monotonic() + LOCK_SECONDS
        while not _locks(file.fileno()):
            if time.monotonic() >= give_up:
                raise LongtailError(f"{folder} is being run by another process", fix="wait until it ends, or stop it")
            time.sleep(_POLL_SECONDS)
        yield


def _locks(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _train(cell: Cell, data: LongTailData, reporter: Reporter, machine: Machine) -> Run:
    first, config = cell.first_stage, cell.config
    shared = first is not None and all((first / name).exists() for name in ("metrics.json", "state.pt"))
    request = {field.name: getattr(config, field.name) for field in fields(config) if field.name in _NAMED}
    return session.train(
        data,
        config.method,
        out=cell.folder,
        resume=cell.begun,
        stage1=first if shared else None,
        reporter=reporter,
        device=machine.device,
        threads=machine.threads,
        compile=machine.compile,
        runtime=machine.runtime,
        **request,
        **config.budget,
        **config.options,
    )
