"""A published table beside our runs: which rows can be run, with which runs, and what these say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from longtail import methods
from longtail.benchmark import published
from longtail.benchmark.collect import device_name
from longtail.benchmark.grid import USUAL_REQUEST, Cell, Request, Source, arrange, task_of
from longtail.benchmark.published import Published
from longtail.benchmark.standin import stand_in
from longtail.benchmark.table import Summary, summarise
from longtail.command import command_of
from longtail.config import read_config
from longtail.data import DATASETS
from longtail.data.benchmarks import FILE_DATASETS
from longtail.errors import LongtailError, UsageError, unknown_name
from longtail.evaluation import shot_groups
from longtail.evaluation.shots import ShotRule
from longtail.networks.weights import IMAGENET
from longtail.request import build_recipe, make_config
from longtail.run import Run
from longtail.training.budget import PROTOCOLS, Budget

GROUPS = ("many", "medium", "few")
READ = {*DATASETS, *FILE_DATASETS}
_BUDGET = {field.name for field in fields(Budget)}


@dataclass(frozen=True)
class Wanted:
    """What is asked of `plan`.

    Attributes:
        seeds: Training seeds.
        protocol: ``published``, or ``common`` or ``quick`` for a look at other cost.
        epochs: Epochs; None: the protocol's, and on list data sets the printed ones under ``published``.
        methods: Only rows of these methods; empty: all.
        imbalance: Only this imbalance factor.
        precision: ``auto``, ``bf16`` or ``fp32``.
        root: Folder of the data sets.
    """

    seeds: Sequence[int] = (0, 1, 2)
    protocol: str = "published"
    epochs: int | None = None
    methods: Sequence[str] = ()
    imbalance: float | None = None
    precision: str = "auto"
    root: str | None = None


@dataclass(frozen=True)
class Comparison:
    """One printed number and the runs to set beside it.

    Attributes:
        column: Title of its column.
        published: The number.
        cells: Our runs, one a seed; empty where there can be none.
        reason: Why there can be none.
    """

    column: str
    published: Published
    cells: tuple[Cell, ...]
    reason: str = ""

    def ours(self) -> Summary | None:
        """Return our number over the seeds that are finished, with the difference as its gain; None without any."""
        runs = [Run(cell.folder).metrics for cell in self.cells if cell.finished]
        values = [value for run in runs if (value := score_of(run, self.published)) is not None]
        if not values:
            return None
        return summarise(values, sum(values) / len(values) - self.published.value)

    def how(self) -> dict[str, Any] | None:
        """Return how the finished runs were made: command, commits, seeds, devices, protocol; None without any."""
        runs = [(cell.config, read_config(cell.folder)[1]) for cell in self.cells if cell.finished]
        if not runs:
            return None
        config, more = runs[0]
        makers = [maker for _, own in runs for maker in (own["made_by"], *own.get("resumed_by", []))]
        return {
            "command": command_of(config, more.get("runtime") or {}),
            "commits": sorted({str(maker.get("commit")) for maker in makers}),
            "seeds": [config.seed for config, _ in runs],
            "devices": sorted({_device(more) for _, more in runs}),
            "protocol": config.protocol,
            "epochs": config.budget["epochs"],
        }


def _device(more: Mapping[str, Any]) -> str:
    runtime, made_by = more["runtime"], more["made_by"]
    return f"{device_name(runtime, made_by)}, {runtime['precision']}, torch {made_by.get('torch', '?')}"


@dataclass(frozen=True)
class Reproduction:
    """A published table and the grid of runs that stands beside it.

    Attributes:
        table: The table as printed.
        wanted: What was asked for.
        comparisons: One for each printed number, row after row.
        cells: The runs of all of them, each once, first stages in front.
    """

    table: published.Table
    wanted: Wanted
    comparisons: tuple[Comparison, ...]
    cells: tuple[Cell, ...]

    def rows(self) -> list[tuple[published.Row, dict[str, Comparison]]]:
        """Return the comparisons of each row by column; rows of which none was asked for are left out."""
        of = {id(c.published): c for c in self.comparisons}
        rows = [
            (row, {column: of[id(cell)] for column, cell in row.cells.items() if id(cell) in of})
            for row in self.table.rows
        ]
        return [(row, cells) for row, cells in rows if cells]


def plan(name: str, wanted: Wanted, out: Path) -> Reproduction:
    """List what can be run of a published table.

    Data of CIFAR need not be there yet. A number that cannot be reproduced keeps its row, with the reason.

    Args:
        name: Name of the table, from `longtail.benchmark.published.names`.
        wanted: Seeds, protocol and filters.
        out: Folder of the run folders; tables share runs there.

    Raises:
        UsageError: There is no such table, nothing in it fits, a value is wrong, or a folder holds another run.
    """
    if wanted.protocol not in PROTOCOLS:
        raise unknown_name("protocol", wanted.protocol, PROTOCOLS)
    if wanted.epochs is not None and wanted.epochs < 1:
        raise UsageError(f"epochs is {wanted.epochs}; it must be at least 1")
    table = published.table(name)
    numbers = [pair for row in table.rows for pair in row.cells.items() if _is_chosen(pair[1], wanted)]
    if not numbers:
        asked = f"methods {', '.join(wanted.methods) or 'any'}, imbalance {wanted.imbalance or 'any'}"
        raise UsageError(f"no number of {name} fits: {asked}", fix="leave --methods or --imbalance out")
    answers = [_requests(number, wanted) for _, number in numbers]
    requests = [request for answer in answers if not isinstance(answer, str) for request in answer]
    cells = arrange(sorted(requests, key=lambda request: request.config.seed), out)
    at = {cell.folder: cell for cell in cells}
    comparisons = [
        Comparison(column, number, (), answer)
        if isinstance(answer, str)
        else Comparison(column, number, tuple(at[out / request.folder_name] for request in answer))
        for (column, number), answer in zip(numbers, answers, strict=True)
    ]
    return Reproduction(table, wanted, tuple(comparisons), tuple(cells))


def _is_chosen(number: Published, wanted: Wanted) -> bool:
    return wanted.imbalance in (None, number.imbalance) and (not wanted.methods or number.method in wanted.methods)


def _requests(number: Published, wanted: Wanted) -> list[Request] | str:
    """Return the runs behind a number, or why there are none."""
    try:
        first = _request(number, wanted)
    except LongtailError as error:
        return error.line
    if isinstance(first, str):
        return first
    return [replace(first, config=replace(first.config, seed=seed)) for seed in wanted.seeds]


def _request(number: Published, wanted: Wanted) -> Request | str:
    known = {*methods.names(), *methods.modifiers()}
    if not number.method:
        return "no method of this name here"
    if missing := [part for part in number.method.split("+") if part not in known]:
        return f"{' and '.join(missing)} not implemented"
    if number.dataset not in READ:
        return f"{number.dataset} is not among the data sets that can be read"
    if number.score in GROUPS and number.groups == "unclear":
        return "by which rule the classes were grouped is not known"
    if not (number.score in ("top1", "top5", *GROUPS) or number.score.startswith("class")):
        return f"{number.score} is not measured"
    of_files = number.dataset in FILE_DATASETS
    options: dict[str, Any] = dict(number.options)
    if wanted.protocol != "published":  # a schedule of the row's own has no place in another protocol
        options = {name: value for name, value in options.items() if name not in _BUDGET}
    if wanted.epochs is not None:
        options["epochs"] = wanted.epochs
    elif of_files and wanted.protocol == "published" and number.epochs is not None:
        options["epochs"] = number.epochs
    imbalance = None if of_files else number.imbalance
    source = Source(
        number.dataset, imbalance, "natural" if of_files else number.profile, 0, number.dev_per_class, wanted.root
    )
    backbone = number.backbone.lower().replace("-", "") if of_files and " " not in number.backbone else None
    asked = {**USUAL_REQUEST, "protocol": wanted.protocol, "precision": wanted.precision, "backbone": backbone or None}
    if number.dataset == "places-lt":  # every paper starts from ImageNet there
        asked["weights"] = IMAGENET
    data = _stand_in(source)
    config = make_config(data, number.method, seed=wanted.seeds[0], options=options, **asked)
    # Large tables print a method with several networks and lengths side by side.
    apart = f"{config.backbone}-{config.budget['epochs']}ep" if of_files else ""
    return Request(config, build_recipe(config, task_of(config, data)), source, apart)


_stand_in = lru_cache(maxsize=64)(stand_in)


def score_of(metrics: Mapping[str, Any], number: Published) -> float | None:
    """Return what a run scored on what a number measures; None where it cannot say.

    Args:
        metrics: Content of ``metrics.json``.
        number: The published number; its rule of many, medium and few is used.
    """
    if number.score in GROUPS and number.groups in ("oltr", "mislas"):
        classes = shot_groups(metrics["class_counts"], cast(ShotRule, number.groups))[number.score]
        accuracies = [metrics["per_class"][k] for k in classes]
        return sum(accuracies) / len(accuracies) if accuracies else None
    if number.score.startswith("class"):
        value: float | None = metrics["per_class"][int(number.score.removeprefix("class"))]
        return value
    return metrics.get(number.score)
