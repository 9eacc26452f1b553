"""`longtail decouple`: how features and classifier are each best learnt, a grid of both, trained and drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table as RichTable
from tyro.conf import Positional

from longtail.cli import early
from longtail.cli.arguments import flags, parse_open
from longtail.cli.grid import Spread, as_plain, place, run_all, status
from longtail.cli.output import is_main, say, say_json, say_table
from longtail.cli.setup import Setup, Unset, check_data, check_place
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.benchmark.decoupling import Study
    from longtail.benchmark.grid import Cell, Outcome


@dataclass(frozen=True)
class What:
    """The flags that stand first in the help."""

    data: Positional[str] = "digits"
    """digits, cifar10, cifar100, or a folder of class folders, or a CSV file (path,label[,split])"""
    seeds: int = 1
    """Number of training seeds: 0, 1, ..."""
    out: Unset[str] = None
    """Folder of the run folders and of decoupling.png and .json (default: one under runs/)"""


@dataclass(frozen=True)
class Decouple(Setup, Spread, What):  # fields of the last base come first
    """Learn features by CE, RW and RS, and on each of them, frozen, a fresh classifier by CE, RW and RS.

    CE is plain cross-entropy, RW weighs classes by their inverse frequency, RS draws classes equally often: figure 2 of
    BBN (Zhou et al., CVPR 2020). Prints and draws the nine error rates. What is finished is kept, what was stopped goes
    on: give the same command again.

    Any other --NAME VALUE is a field of the budget, such as --lr or --batch-size, or an option of crt.
    """


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments, options, _ = parse_open(Decouple, "decouple", words)
    arguments.check()
    if arguments.seeds < 1:
        raise UsageError(f"seeds is {arguments.seeds}; it must be at least 1")
    check_data(arguments.data)
    cells, outcomes, out = _run_grid(arguments, options)
    from longtail.benchmark.decoupling import tabulate

    study = tabulate(outcomes)
    if arguments.json:
        say_json({**study.plain(), "out": str(out), "runs": [as_plain(outcome) for outcome in outcomes]})
    else:
        _show(study, outcomes, out)
    return status(outcomes, cells)


def _run_grid(arguments: Decouple, options: dict[str, str]) -> tuple[list[Cell], list[Outcome], Path]:
    from longtail.benchmark import decoupling

    decoupling.check_options(options, flags(Decouple))
    check_place(arguments.out, arguments.data)
    early.check_request(arguments, arguments.data, decoupling.runs_of(arguments.asked(options)))
    if arguments.ray is None:  # on a cluster, the machine is another
        early.check_machine(arguments.device, arguments.threads, jobs=arguments.jobs, quiet=arguments.quiet)
    machine = arguments.share(**arguments.machine())
    data = arguments.load_data(arguments.data)
    out = place(arguments.out, "decouple", data)
    asked, source = arguments.asked(options), arguments.source(arguments.data)
    cells = decoupling.plan(data, range(arguments.seeds), out, options=asked, source=source, **arguments.request())
    outcomes = run_all(
        cells,
        data,
        arguments,
        machine,
        quiet=arguments.quiet,
        heard=lambda outcomes: write(decoupling.tabulate(outcomes), outcomes, out),
    )
    return cells, outcomes, out


def write(study: Study, outcomes: Sequence[Outcome], out: Path) -> None:
    """Write the error rates as JSON and, once there is one, the picture.

    Raises:
        LongtailError: The folder cannot be written.
    """
    if not is_main():
        return
    from longtail.report import decoupling_grid

    document = {**study.plain(), "runs": [as_plain(outcome) for outcome in outcomes]}
    errors: dict[tuple[str, str], float | None] = {
        pair: None if error is None else error.mean for pair, error in study.errors.items()
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "decoupling.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if any(error is not None for error in errors.values()):
            decoupling_grid(errors).savefig(out / "decoupling.png", dpi=150)
    except OSError as error:
        raise LongtailError(f"the grid cannot be written to {out}: {error.strerror}") from error


def _show(study: Study, outcomes: Sequence[Outcome], out: Path) -> None:
    say("error in percent, mean ± std over seeds; features from left to right, classifiers from top to bottom")
    table = RichTable(box=SIMPLE)
    table.add_column("classifier")
    manners = list(study.whole)
    for manner in manners:
        table.add_column(f"features {manner.upper()}", justify="right")
    for classifier in manners:
        table.add_row(classifier.upper(), *(str(study.errors[f, classifier] or "n/a") for f in manners))
    table.add_row("as trained", *(str(study.whole[manner] or "n/a") for manner in manners), style="dim")
    say_table(table)
    for outcome in outcomes:
        if outcome.status == "failed":
            say(f"{outcome.cell.folder.name} failed, {outcome.reason}")
    say(f"figure  {out / 'decoupling.png'}, .json")
