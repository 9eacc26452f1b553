"""How long runs will take on this machine: a few measured steps, and what methods cost beside plain training."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from longtail.benchmark.cards import factor
from longtail.benchmark.execution import taken_over
from longtail.benchmark.grid import Cell
from longtail.benchmark.job import Machine, settled_for
from longtail.benchmark.standin import noisy, stand_in
from longtail.benchmark.table import BASELINE
from longtail.folder import RunFolder
from longtail.request import build_run_network
from longtail.training.progress import Position
from longtail.training.runtime import Runtime, pick_device, thread_count
from longtail.training.world import World
from longtail.underway import Session

_STEPS = 4
_FORWARD = 1 / 3  # of a training step


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        stages: Seconds of each stage.
        evaluation: Seconds of all looks at the test set.
        images: Training images that these figures hold for.
        epochs: Epochs of the budget that they hold for.
    """

    stages: tuple[float, ...]
    evaluation: float
    images: int
    epochs: int

    def seconds(self, images: int, epochs: int) -> float:
        """Return the seconds of a run on another number of images and of other length."""
        return sum(self.stages) * images * epochs / (self.images * self.epochs) + self.evaluation


class _EnoughError(Exception):
    """Enough steps were measured."""


class _Stopwatch:
    """A reporter that takes the time of a few steps of one stage, then ends it."""

    def __init__(self, runtime: Runtime) -> None:
        self._on_gpu = runtime.device.startswith("cuda")
        self._number = 0
        self._times: list[float] = []
        self.steps = 0

    def begin(self, number: int) -> None:
        self._number, self.steps = number, 0
        self._times = [self._now()]

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def stage(self, name: str, number: int, stages: int, epochs: int) -> None:
        if number != self._number:
            raise _EnoughError

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        self.steps = steps
        self._times.append(self._now())
        if len(self._times) > _STEPS:
            raise _EnoughError

    def epoch(self, record: dict[str, Any]) -> None:
        """Hear nothing new: a stage of very few steps an epoch goes on until enough of them are measured."""

    def total(self, epochs: int) -> tuple[float, float]:
        """Return the seconds of the whole stage, and of one step."""
        if len(self._times) == 1:  # nothing is trained in it
            return self._now() - self._times[0], 0.0
        gaps = [later - earlier for earlier, later in zip(self._times, self._times[1:], strict=False)]
        step = statistics.median(gaps[1:] or gaps)
        return gaps[0] + step * (self.steps * epochs - 1), step


def measure(cell: Cell, runtime: Runtime) -> Cost:
    """Do the first steps of every stage of a run on random images, and return what all of it would cost."""
    data = noisy(stand_in(cell.source))
    watch = _Stopwatch(runtime)
    with TemporaryDirectory() as folder, thread_count(runtime.threads):
        session = Session(cell.config, data, RunFolder(Path(folder)), World(), watch)
        network = build_run_network(cell.config, session.task, session.recipe).to(runtime.device)
        session.training = session.make_training(network.to(memory_format=torch.channels_last), runtime)  # type: ignore[call-overload]
        totals, per_image = [], 0.0
        for number, stage in enumerate(session.recipe.stages):
            session.training.position = Position(stage=number)
            watch.begin(number)
            with contextlib.suppress(_EnoughError):
                session.training.run()
            total, step = watch.total(stage.epochs)
            totals.append(total)
            per_image = per_image or step / stage.batch_size
    looks = 1 + sum(stage.epochs for stage in session.recipe.stages) // cell.config.eval_every
    evaluation = looks * len(data.test) * per_image * _FORWARD
    return Cost(tuple(totals), evaluation, len(data.train), cell.config.budget["epochs"])


def seconds_left(
    cells: Sequence[Cell], machine: Machine, tell: Callable[[str], None] = lambda line: None
) -> dict[Path, float]:
    """Return how many seconds each run still takes, by its folder.

    Plain training is measured once for each data set, backbone and batch size; a method takes as many times as long as
    its card says. Measuring every method would take minutes, and on a machine that does other work too, the steps of
    one could not be compared with those of the next.

    Args:
        cells: Runs; those on CIFAR need no data yet.
        machine: How to use the machine.
        tell: Hears what is being measured.
    """
    left: dict[Path, float] = {}
    plain: dict[tuple[Any, ...], Cost] = {}
    runtime = machine.runtime or taken_over(cells, machine)
    by_folder = {cell.folder: cell for cell in cells}
    for cell in cells:
        if cell.finished:
            left[cell.folder] = 0.0
            continue
        data, config = stand_in(cell.source), cell.config
        runtime = runtime or settled_for(cell, data, _in_a_hurry(machine))
        shape = (config.dataset, config.backbone, config.budget["batch_size"])
        if shape not in plain:
            tell(f"measuring plain training of {config.backbone} on {config.dataset}")
            plain[shape] = measure(_plain(cell), runtime)
        times = factor(config.method) - _lent(cell, by_folder)
        seconds = times * plain[shape].seconds(len(data.train), config.budget["epochs"])
        left[cell.folder] = seconds * (1.0 - _done(cell))
    return left


def _lent(cell: Cell, cells: Mapping[Path, Cell]) -> float:
    """Return what the run that lends its first stages has spent on them, in times of plain training."""
    if cell.first_stage is None:
        return 0.0
    lender = cells[cell.first_stage]
    return factor(lender.config.method) * sum(lender.stage_epochs[: cell.shared]) / sum(lender.stage_epochs)


def _plain(cell: Cell) -> Cell:
    """Return plain cross-entropy under the budget of a run."""
    return replace(cell, config=replace(cell.config, method=BASELINE, options={}, teacher=None))


def _in_a_hurry(machine: Machine) -> Machine:
    """Return the machine without the trial of compilation, which takes longer than all the rest on a CPU."""
    on_cpu = pick_device(machine.device).type == "cpu"
    return replace(machine, compile="off") if on_cpu and machine.compile == "auto" else machine


def _done(cell: Cell) -> float:
    """Return how much of a run is done, by its epochs."""
    history: Path = cell.folder / "history.jsonl"
    lines = len(history.read_text(encoding="utf-8").splitlines()) if history.exists() else 0
    return min(1.0, lines / max(1, sum(cell.stage_epochs)))
