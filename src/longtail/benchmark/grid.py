"""Methods x seeds: what to run, what is done already, and running the rest one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from longtail import methods, session
from longtail.benchmark.table import BASELINE
from longtail.config import CONFIG_NAME, RunConfig, read_config
from longtail.data import LongTailData
from longtail.errors import LongtailError, UsageError, unknown_name
from longtail.request import Task, build_recipe, default_folder, make_config
from longtail.run import Run
from longtail.training.budget import Budget
from longtail.training.loop import InterruptedRunError, Reporter

BUDGET_FIELDS = frozenset(Budget.__dataclass_fields__)


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        config: What is asked for.
        folder: Its run folder.
        first_stage: Folder of the run of the grid whose training equals this one's first stage; None without one.
        stage_epochs: Epochs of each stage.
    """

    config: RunConfig
    folder: Path
    first_stage: Path | None
    stage_epochs: tuple[int, ...]

    @property
    def finished(self) -> bool:
        """Whether the run has its metrics."""
        return (self.folder / "metrics.json").exists()

    @property
    def begun(self) -> bool:
        """Whether the run folder holds this run."""
        return (self.folder / CONFIG_NAME).exists()


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: The cell.
        status: ``done``: trained now; ``kept``: finished before; ``failed``.
        metrics: Content of ``metrics.json``; None when failed.
        reason: Why it failed, one line.
    """

    cell: Cell
    status: Literal["done", "kept", "failed"]
    metrics: Mapping[str, Any] | None = None
    reason: str = ""


Watch = Callable[[Cell], AbstractContextManager[Reporter]]


def plan(
    data: LongTailData,
    names: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    subset_seed: int = 0,
    protocol: str = "common",
    backbone: str | None = None,
    precision: str = "auto",
    eval_every: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """List the runs of a grid, seed after seed, each run after the one that its first stage is taken from.

    Everything that can be wrong is found here, before the first hour of training.

    Args:
        data: The data set.
        names: Methods with modifiers; cross-entropy is added in front where it is missing.
        seeds: Training seeds.
        out: Folder of the run folders.
        subset_seed: Seed of the choice of images.
        protocol: ``common``, ``published`` or ``quick``.
        backbone: Name of the backbone; None: the data set's default.
        precision: ``auto``, ``bf16`` or ``fp32``.
        eval_every: Epochs between looks at the test set.
        options: Fields of the budget, for all runs; options of methods, for those that have them.

    Raises:
        UsageError: A name, value or combination is wrong, or a folder holds another run.
    """
    wanted = methods_of(names)
    shares = _shares(wanted, options or {})
    configs = {
        (name, seed): make_config(
            data,
            name,
            subset_seed=subset_seed,
            protocol=protocol,
            seed=seed,
            backbone=backbone,
            precision=precision,
            eval_every=eval_every,
            options=shares[name],
        )
        for seed in seeds
        for name in wanted
    }
    task = Task.of(data)
    recipes = {name: build_recipe(configs[name, seeds[0]], task) for name in wanted}
    leaders = {recipe.first_stage_of for recipe in recipes.values()}
    cells = []
    for seed in seeds:
        for name in sorted(wanted, key=lambda name: name not in leaders):
            config, recipe = configs[name, seed], recipes[name]
            leader = configs.get((recipe.first_stage_of or "", seed))
            first = None if leader is None else out / default_folder(leader).name
            epochs = tuple(stage.epochs for stage in recipe.stages)
            cells.append(Cell(config, out / default_folder(config).name, first, epochs))
    for cell in cells:
        _check_folder(cell)
    return cells


def methods_of(names: Sequence[str]) -> list[str]:
    """Return the methods of a grid, spelled canonically and once each, the baseline first.

    Raises:
        UsageError: A name is unknown.
    """
    wanted = dict.fromkeys(methods.canonical(name) for name in names)
    return [BASELINE, *(name for name in wanted if name != BASELINE)]


def _shares(names: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give every method the options that it has.

    Raises:
        UsageError: No method has an option.
    """
    known = {name: option_names(name) for name in names}
    for key in options:
        everything = set().union(*known.values())
        if key.replace("-", "_") not in {k.replace("-", "_") for k in everything}:
            raise unknown_name("option", f"--{key}", {f"--{k}" for k in everything})
    return {
        name: {k: v for k, v in options.items() if k.replace("-", "_") in {o.replace("-", "_") for o in known[name]}}
        for name in names
    }


def option_names(name: str) -> set[str]:
    """Return the names of the options that a method takes: fields of the budget, its own, and ``part.option``.

    Raises:
        UsageError: The method is unknown.
    """
    own = methods.options(name)
    return {*BUDGET_FIELDS, *own, *(option.name for option in own.values())}


def _check_folder(cell: Cell) -> None:
    if not cell.begun:
        return
    there, _ = read_config(cell.folder)
    differences = cell.config.differences(there)
    if differences:
        raise UsageError(
            f"{cell.folder} holds a run with another configuration: {'; '.join(differences)}",
            fix="choose another --out",
        )


def execute(
    cells: Sequence[Cell],
    data: LongTailData,
    *,
    device: str = "auto",
    threads: str | int = "auto",
    compile: str = "auto",
    watch: Watch,
) -> Iterator[Outcome]:
    """Run a grid: finished runs are kept, unfinished ones go on, and a failure does not stop the others.

    What is left open of precision, threads and compilation is settled by the first run, and all others take it over: on
    a level field only the method differs.

    Args:
        cells: From `plan`.
        data: The data set.
        device: As for `longtail.train`.
        threads: As for `longtail.train`.
        compile: As for `longtail.train`.
        watch: Makes the context that gives the reporter of a run.

    Yields:
        What became of each cell, in order.

    Raises:
        InterruptedRunError: A run was asked to stop; its state is on disk.
    """
    machine: dict[str, Any] = {"device": device, "threads": threads, "compile": compile, "runtime": None}
    for cell in cells:
        outcome = _outcome(cell, data, watch, machine)
        if machine["runtime"] is None and outcome.metrics is not None:
            machine["runtime"] = Run(cell.folder).runtime
        yield outcome


def _outcome(cell: Cell, data: LongTailData, watch: Watch, machine: Mapping[str, Any]) -> Outcome:
    kept = cell.finished
    try:
        with watch(cell) as reporter:
            run = _train(cell, data, reporter, machine)
        return Outcome(cell, "kept" if kept else "done", metrics=run.metrics)
    except InterruptedRunError:
        raise
    except LongtailError as error:
        return Outcome(cell, "failed", reason=error.message)
    except Exception as error:  # a long grid must survive whatever one method does
        return Outcome(cell, "failed", reason=f"{type(error).__name__}: {error}")


def _train(cell: Cell, data: LongTailData, reporter: Reporter, machine: Mapping[str, Any]) -> Run:
    first = cell.first_stage
    shared = first is not None and all((first / name).exists() for name in ("metrics.json", "state.pt"))
    config = cell.config
    return session.train(
        data,
        config.method,
        subset_seed=config.subset_seed,
        protocol=config.protocol,
        seed=config.seed,
        backbone=config.backbone,
        precision=config.precision,
        eval_every=config.eval_every,
        out=cell.folder,
        resume=cell.begun,
        stage1=first if shared else None,
        reporter=reporter,
        **machine,
        **config.budget,
        **config.options,
    )
