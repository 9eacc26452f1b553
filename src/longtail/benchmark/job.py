"""One run of a grid, done by whoever has time for it: in this process, in one beside it, or on another machine."""

from __future__ import annotations

import inspect
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import torch

from longtail import session
from longtail.benchmark.grid import Cell, Outcome, Source, task_of
from longtail.data import LongTailData
from longtail.errors import LongtailError
from longtail.folder import RunFolder, alone
from longtail.request import build_recipe, build_run_network
from longtail.run import Run
from longtail.training.loop import InterruptedRunError
from longtail.training.progress import Reporter, SilentReporter
from longtail.training.runtime import Runtime, pick_device, settle
from longtail.training.stop import time_limit

LOCK_SECONDS = 60.0
"""How long a run waits for another process to leave its folder; one that was told to stop leaves after a step."""
TRACEBACK_NAME = "error.txt"
_PARAMETERS = inspect.signature(session.train).parameters.values()
_NAMED = {parameter.name for parameter in _PARAMETERS if parameter.kind is parameter.KEYWORD_ONLY}


@dataclass(frozen=True)
class Machine:
    """How the machine is used.

    Attributes:
        device: As for `longtail.train`.
        threads: As for `longtail.train`.
        compile: As for `longtail.train`.
        runtime: Settled choices that go before all of these; None: settle what is open.
        track: As for `longtail.train`.
    """

    device: str = "auto"
    threads: str | int = "auto"
    compile: str = "auto"
    runtime: Runtime | None = None
    track: str | None = None


@dataclass(frozen=True)
class Job:
    """What a process needs to do a run.

    Attributes:
        cell: The run.
        machine: How to use the machine.
        until: When it shall stop with its state on disk, in seconds as `time.time` counts them, so that the time in
            which a process starts or waits for a machine counts too; None: at its end.
    """

    cell: Cell
    machine: Machine
    until: float | None = None

    def seconds(self) -> float | None:
        """Return the time that is left; None for all the time."""
        return None if self.until is None else self.until - time.time()


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
        with alone(cell.folder, LOCK_SECONDS), time_limit(job.seconds()):
            kept = cell.finished
            (cell.folder / TRACEBACK_NAME).unlink(missing_ok=True)
            run = _train(cell, data or _loaded(cell.source), reporter or SilentReporter(), job.machine)
            return Outcome(cell, "kept" if kept else "done", metrics=run.metrics)
    except InterruptedRunError as stop:
        return Outcome(cell, "stopped", reason=stop.message)
    except LongtailError as error:
        return Outcome(cell, "failed", reason=error.line)
    except Exception as error:  # a long grid must survive whatever one method does
        return Outcome(cell, "failed", reason=_unforeseen(cell.folder, error))


def work(job: Job) -> Outcome:
    """Do a run in a process that is there for nothing else, with no more threads than its share."""
    if job.machine.runtime is not None:
        torch.set_num_threads(job.machine.runtime.threads)
    return run_job(job)


def _unforeseen(folder: Path, error: Exception) -> str:
    """Keep the traceback of an error in the code beside the run, and return the error in one line."""
    path = folder / TRACEBACK_NAME
    with suppress(OSError):
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else 'no message'} (traceback in {path})"


@lru_cache(maxsize=2)
def _loaded(source: Source) -> LongTailData:
    return source.load()


def _lends(folder: RunFolder, stages: int) -> bool:
    """Tell whether a run lends the end of so many stages. A state that is damaged costs a training and no result."""
    try:
        return folder.finished and folder.lent_state(stages) is not None
    except LongtailError:
        return False


def _train(cell: Cell, data: LongTailData, reporter: Reporter, machine: Machine) -> Run:
    first, config = cell.first_stage, cell.config
    lent = first is not None and _lends(RunFolder(first), cell.shared)
    request = {field.name: getattr(config, field.name) for field in fields(config) if field.name in _NAMED}
    return session.train(
        data,
        config.method,
        out=cell.folder,
        resume=cell.begun,
        stage1=first if lent else None,
        reporter=reporter,
        device=machine.device,
        threads=machine.threads,
        compile=machine.compile,
        runtime=machine.runtime,
        track=machine.track,
        **request,
        **config.budget,
        **config.options,
    )
