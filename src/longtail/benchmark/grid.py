"""What a grid is made of: which runs, in which order, and what is done already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from longtail import data as datasets
from longtail import methods
from longtail.benchmark.table import BASELINE
from longtail.config import CONFIG_NAME, RunConfig, git_commit, read_config
from longtail.data import LongTailData
from longtail.errors import UsageError
from longtail.request import Task, build_recipe, default_folder, make_config
from longtail.run import Run
from longtail.training.recipe import Recipe
from longtail.training.runtime import Runtime
from longtail.training.sharing import shared_stages

git_commit()  # now, since reading the data may take an hour before what trains is imported

USUAL_REQUEST: Mapping[str, Any] = {
    "protocol": "common",
    "backbone": None,
    "precision": "auto",
    "eval_every": None,
}
"""What a run is asked for where nothing else is said."""


@dataclass(frozen=True)
class Source:
    """Where the data of a run comes from; small enough to be sent to another process.

    Attributes:
        name: As for `longtail.data.load`.
        imbalance: Imbalance factor; None: the data set's default.
        profile: ``exp`` or ``step``.
        subset_seed: Seed of the choice of images.
        dev_per_class: Images per class of the development set.
        root: Folder of the data sets.
        image_size: Side to which images from files are scaled.
        strict: Whether any problem with an image file is an error.
    """

    name: str
    imbalance: float | None = None
    profile: str = "exp"
    subset_seed: int = 0
    dev_per_class: int = 0
    root: str | None = None
    image_size: int | None = None
    strict: bool = False

    def load(self) -> LongTailData:
        """Load the data."""
        facts = {k: v for k, v in vars(self).items() if k != "name"}
        return datasets.load(self.name, **facts)


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        config: What is asked for.
        folder: Its run folder.
        first_stage: Folder of the run of the grid whose first stages are this one's too; None without one.
        stage_epochs: Epochs of each stage.
        source: Where its data comes from.
        shared: How many stages that run has trained for this one.
    """

    config: RunConfig
    folder: Path
    first_stage: Path | None
    stage_epochs: tuple[int, ...]
    source: Source
    shared: int = 0

    @property
    def finished(self) -> bool:
        """Whether the run has its metrics."""
        return (self.folder / "metrics.json").exists()

    @property
    def begun(self) -> bool:
        """Whether the run folder holds this run."""
        return (self.folder / CONFIG_NAME).exists()

    @property
    def name(self) -> str:
        """Method and seed, for people."""
        return f"{self.config.method} seed {self.config.seed}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: The cell.
        status: ``done``: trained now; ``kept``: finished before; ``failed``; ``stopped``: its state is on disk.
        metrics: Content of ``metrics.json``; None when failed or stopped.
        reason: Why it failed, one line.
    """

    cell: Cell
    status: Literal["done", "kept", "failed", "stopped"]
    metrics: Mapping[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Request:
    """A run that a grid shall hold.

    Attributes:
        config: What is asked for.
        recipe: What it stands for.
        source: Where its data comes from.
        apart: What else its folder is named after, where a grid holds runs that differ in nothing else of the name.
    """

    config: RunConfig
    recipe: Recipe
    source: Source
    apart: str = ""

    @property
    def folder_name(self) -> str:
        """Name of its run folder."""
        return "-".join(filter(None, (folder_name(self.config), self.apart)))


def plan(
    data: LongTailData,
    names: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    source: Source | None = None,
    **request: Any,
) -> list[Cell]:
    """List the runs of a grid, seed after seed, each run after the one that its first stage is taken from.

    Everything that can be wrong is found here, before the first hour of training.

    Args:
        data: The data set.
        names: Methods with modifiers; cross-entropy is added in front where it is missing.
        seeds: Training seeds.
        out: Folder of the run folders.
        options: Fields of the budget, for all runs; options of methods, for those that have them.
        source: Where the data comes from, for runs in other processes; None: its name says it.
        **request: As for `longtail.request.make_config`, such as ``protocol`` and ``precision``.

    Raises:
        UsageError: A name, value or combination is wrong, or a folder holds another run.
    """
    wanted = methods_of(names)
    shares = shares_of(wanted, options or {})
    asked = {**USUAL_REQUEST, **request}
    configs = {
        (name, seed): make_config(data, name, seed=seed, options=shares[name], **asked)
        for seed in seeds
        for name in wanted
    }
    recipes = {name: build_recipe(configs[name, seeds[0]], task_of(configs[name, seeds[0]], data)) for name in wanted}
    first = configs[wanted[0], seeds[0]]
    place = source or Source(data.name, data.imbalance, data.profile, first.subset_seed, first.dev_per_class)
    return arrange((Request(configs[name, seed], recipes[name], place) for seed in seeds for name in wanted), out)


def task_of(config: RunConfig, data: LongTailData) -> Task:
    """Return what a run on some data learns from."""
    return Task.of(data.with_dev_in_train() if methods.trains_on_dev(config.method) else data, config)


def arrange(requests: Iterable[Request], out: Path) -> list[Cell]:
    """Give every request its folder and, among those of one data set and seed, see who trains stages for whom.

    Requests that are equal are one run. A run comes after the one that its first stages are taken from.

    Raises:
        UsageError: A folder holds another run.
        ValueError: Two different requests have one name.
    """
    groups: dict[tuple[Any, ...], dict[Path, Request]] = {}
    places: dict[Path, RunConfig] = {}
    for request in requests:
        config, folder = request.config, out / request.folder_name
        if differences := config.differences(places.setdefault(folder, config)):
            raise ValueError(f"two runs of the grid would be in {folder}: {'; '.join(differences)}")
        key = (request.source, config.protocol, config.backbone, config.seed)
        groups.setdefault(key, {})[folder] = request
    cells = []
    for group in groups.values():
        leaders = _leaders(group)
        for folder in _leaders_first(leaders):
            request, (leader, shared) = group[folder], leaders[folder]
            epochs = tuple(stage.epochs for stage in request.recipe.stages)
            cells.append(Cell(request.config, folder, leader, epochs, request.source, shared))
    for cell in cells:
        _check_folder(cell)
    return cells


def folder_name(config: RunConfig) -> str:
    """Return the name of a run's folder in a grid: the usual one, and what the usual one leaves out."""
    extra = ["step"] if config.profile == "step" else []
    extra += [f"dev{config.dev_per_class}"] if config.dev_per_class else []
    extra += [f"{key}={value}".replace("/", "") for key, value in config.options.items()]
    return "-".join([default_folder(config).name, *extra]).replace(" ", "_")


def _leaders(group: Mapping[Path, Request]) -> dict[Path, tuple[Path | None, int]]:
    """Return for each folder that of the run that trains the most epochs for it, and how many stages these are.

    A run with fewer stages leads one with more, of two with as many the first: so nobody waits for itself.
    """
    leaders: dict[Path, tuple[Path | None, int]] = dict.fromkeys(group, (None, 0))
    settled: list[Path] = []
    for folder in sorted(group, key=lambda folder: len(group[folder].recipe.stages)):
        most, request = 0, group[folder]
        for other in settled:
            count = _shared(request, group[other])
            epochs = sum(stage.epochs for stage in request.recipe.stages[:count])
            if epochs > most:
                most, leaders[folder] = epochs, (other, count)
        settled.append(folder)
    return leaders


def _shared(ours: Request, theirs: Request) -> int:
    if ours.config.ground() != theirs.config.ground():
        return 0
    return shared_stages(ours.recipe, theirs.recipe, ours.config.backbone)


def _leaders_first(leaders: Mapping[Path, tuple[Path | None, int]]) -> list[Path]:
    """Return the folders in their order, but each after its leader."""
    order: dict[Path, None] = {}
    for folder in leaders:
        line = [folder]
        while (leader := leaders[line[-1]][0]) is not None:
            line.append(leader)
        order |= dict.fromkeys(reversed(line))
    return list(order)


def methods_of(names: Sequence[str]) -> list[str]:
    """Return the methods of a grid, spelled canonically and once each, the baseline first.

    Raises:
        UsageError: A name is unknown.
    """
    wanted = dict.fromkeys(methods.canonical(name) for name in names)
    return [BASELINE, *(name for name in wanted if name != BASELINE)]


def shares_of(names: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give every method the options that it has.

    Raises:
        UsageError: No method has an option.
    """
    methods.check_options(names, options)
    known = {name: {o.replace("-", "_") for o in methods.option_names(name)} for name in names}
    return {name: {k: v for k, v in options.items() if k.replace("-", "_") in known[name]} for name in names}


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


def known_runtime(cells: Iterable[Cell]) -> Runtime | None:
    """Return what the first run of a grid that has begun settled on, or None."""
    return next((Run(cell.folder).runtime for cell in cells if cell.begun), None)
