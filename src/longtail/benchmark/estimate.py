"""How long runs will take on this machine, from a few steps of each of their stages."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from longtail.benchmark.execution import Machine, settled_for
from longtail.benchmark.grid import Cell, known_runtime
from longtail.benchmark.standin import noisy, stand_in
from longtail.folder import RunFolder
from longtail.request import build_run_network
from longtail.session import Session
from longtail.training.progress import Position
from longtail.training.runtime import Runtime, thread_count
from longtail.training.world import World

_STEPS = 4
_TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000}
_FORWARD = 1 / 3  # of a training step


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        stages: Seconds of each stage.
        shared: Number of the first stages that a finished run can stand in for.
        evaluation: Seconds of all looks at the test set.
        images: Training images that these figures hold for.
    """

    stages: tuple[float, ...]
    shared: int
    evaluation: float
    images: int

    def seconds(self, images: int, *, first_stage_is_there: bool) -> float:
        """Return the seconds of a run on another number of images."""
        stages = self.stages[self.shared :] if first_stage_is_there else self.stages
        return sum(stages) * images / self.images + self.evaluation


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
    test = _TEST_IMAGES.get(cell.source.name, len(data.test))
    shared = session.recipe.first_stages if session.recipe.first_stage_of else 0
    return Cost(tuple(totals), shared, looks * test * per_image * _FORWARD, len(data.train))


def seconds_left(
    cells: Iterable[Cell], machine: Machine, tell: Callable[[str], None] = lambda line: None
) -> dict[Path, float]:
    """Return how many seconds each run still takes, by its folder; each method is measured once for each data set.

    Args:
        cells: Runs; those on CIFAR need no data yet.
        machine: How to use the machine.
        tell: Hears what is being measured.
    """
    left: dict[Path, float] = {}
    costs: dict[str, Cost] = {}
    runtime = machine.runtime
    for cell in cells:
        if cell.finished:
            left[cell.folder] = 0.0
            continue
        data = stand_in(cell.source)
        if runtime is None:
            runtime = known_runtime(cells) or settled_for(cell, data, machine)
        key = _kind(cell)
        if key not in costs:
            tell(f"measuring {cell.config.method} on {cell.config.dataset}")
            costs[key] = measure(cell, runtime)
        seconds = costs[key].seconds(len(data.train), first_stage_is_there=cell.first_stage is not None)
        left[cell.folder] = seconds * (1.0 - _done(cell))
    return left


def _kind(cell: Cell) -> str:
    """Return what runs of equal cost per image share."""
    config = cell.config
    return json.dumps([config.dataset, config.method, config.backbone, config.budget, config.options], default=str)


def _done(cell: Cell) -> float:
    """Return how much of a run is done, by its epochs."""
    history: Path = cell.folder / "history.jsonl"
    lines = len(history.read_text(encoding="utf-8").splitlines()) if history.exists() else 0
    return min(1.0, lines / max(1, sum(cell.stage_epochs)))
