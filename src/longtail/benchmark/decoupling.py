"""The study behind BBN (Zhou et al., CVPR 2020, figure 2): how features and classifier are each best learnt.

Features by CE, RW (weights of inverse frequency) and RS (class-balanced sampling); on each of them, frozen, a fresh
classifier by each of the three. The runs are those of `crt`, on three first stages that each is trained once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longtail import methods
from longtail.benchmark.grid import USUAL_REQUEST, Cell, Outcome, Request, Source, arrange, task_of
from longtail.benchmark.table import Summary, summarise
from longtail.data import LongTailData
from longtail.errors import UsageError
from longtail.methods.crt import MANNERS, Manner
from longtail.request import build_recipe, make_config

Pair = tuple[Manner, Manner]
METHOD = "crt"


@dataclass(frozen=True)
class Study:
    """The grid's error rates.

    Attributes:
        errors: For each pair (features, classifier) the error in percent over seeds; None where no run is finished.
        whole: For each manner the error of the network that learnt all of itself in it, classifier included.
    """

    errors: Mapping[Pair, Summary | None]
    whole: Mapping[Manner, Summary | None]

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""

        def value(summary: Summary | None) -> dict[str, Any] | None:
            return None if summary is None else {k: v for k, v in asdict(summary).items() if k != "gain"}

        return {
            "errors": [{"features": f, "classifier": c, "error": value(e)} for (f, c), e in self.errors.items()],
            "whole": {manner: value(error) for manner, error in self.whole.items()},
        }


def plan(
    data: LongTailData,
    seeds: Sequence[int],
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    source: Source | None = None,
    **request: Any,
) -> list[Cell]:
    """List the runs: for each seed three networks, then nine classifiers on their features.

    Args:
        data: The data set.
        seeds: Training seeds.
        out: Folder of the run folders.
        options: Fields of the budget, for all runs; options of ``crt`` for the classifiers.
        source: Where the data comes from, for runs in other processes; None: its name says it.
        **request: As for `longtail.request.make_config`, such as ``protocol`` and ``precision``.

    Raises:
        UsageError: An option is unknown or the grid's own, or a folder holds another run.
    """
    runs = runs_of(options or {})
    place = source or Source(data.name, data.imbalance, data.profile, data.subset_seed)

    def requests() -> Iterable[Request]:
        for seed in seeds:
            for method, chosen in runs:
                config = make_config(data, method, seed=seed, options=chosen, **{**USUAL_REQUEST, **request})
                yield Request(config, build_recipe(config, task_of(config, data)), place)

    return arrange(requests(), out)


def runs_of(options: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the method and all options of the twelve runs of a seed.

    Raises:
        UsageError: An option is unknown or the grid's own.
    """
    given = {key.replace("-", "_"): value for key, value in options.items()}
    check_options(given)
    chosen = []
    for method, own in _runs():
        known = methods.option_names(method)
        chosen.append((method, {**{key: value for key, value in given.items() if key in known}, **own}))
    return chosen


def _runs() -> list[tuple[str, dict[str, str]]]:
    """Return the method and the own options of the twelve runs of a seed."""
    networks: list[tuple[str, dict[str, str]]] = [(name, {}) for name, _ in MANNERS.values()]
    for features in MANNERS:
        networks += [(METHOD, {"features": features, "classifier": classifier}) for classifier in MANNERS]
    return networks


def check_options(given: Collection[str], also: Iterable[str] = ()) -> None:
    """Refuse options that no run has, and those that the grid sets itself.

    Args:
        given: Names of the options.
        also: What else a misspelt one may stand for, such as the flags of a command.

    Raises:
        UsageError: An option is unknown or the grid's own.
    """
    for key in given:
        own = key.rpartition(".")[2].replace("-", "_")
        if own in ("features", "classifier"):
            raise UsageError(f"--{key} is what the grid goes through, so it cannot be set", fix="leave it out")
        if own in ("power", "warm"):  # RW has power 1 in all its cells, and each classifier is a fresh one
            raise UsageError(f"--{key} would leave the grid without its like cells", fix="leave it out")
    methods.check_options([method for method, _ in _runs()], given, also)


def tabulate(outcomes: Iterable[Outcome]) -> Study:
    """Return the error rates of the runs that are finished."""
    errors: dict[Pair, list[float]] = {(f, c): [] for f in MANNERS for c in MANNERS}
    whole: dict[Manner, list[float]] = {manner: [] for manner in MANNERS}
    manner_of = {name: manner for manner, (name, _) in MANNERS.items()}
    for outcome in outcomes:
        config = outcome.cell.config
        if outcome.metrics is None:
            continue
        error = 100.0 - outcome.metrics["top1"]
        if config.method == METHOD:
            errors[config.options["crt.features"], config.options["crt.classifier"]].append(error)
        else:
            whole[manner_of[config.method]].append(error)
    return Study(
        {pair: summarise(values) if values else None for pair, values in errors.items()},
        {manner: summarise(values) if values else None for manner, values in whole.items()},
    )
