"""`longtail compare`: methods x seeds, one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table as RichTable
from rich.text import Text
from tyro.conf import Positional

from longtail.benchmark.table import SCORES, TITLES, Summary, Table, aggregate, signed, to_csv, to_markdown, to_plain
from longtail.cli import early
from longtail.cli.arguments import flags, parse_open
from longtail.cli.grid import Spread, as_plain, place, run_all, status
from longtail.cli.output import is_main, say, say_json, say_table
from longtail.cli.setup import Setup, Unset, check_data, check_place
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.benchmark.grid import Cell, Outcome


@dataclass(frozen=True)
class What:
    """The flags that stand first in the help."""

    data: Positional[str] = "digits"
    """digits, cifar10, cifar100, or a folder of class folders, or a CSV file (path,label[,split])"""
    methods: str = "ce,ldam+drw,bsce"
    """Methods separated by commas"""
    seeds: int = 3
    """Number of training seeds: 0, 1, ..."""
    out: Unset[str] = None
    """Folder of the run folders and of comparison.md, .csv and .json (default: one under runs/)"""


@dataclass(frozen=True)
class Compare(Setup, Spread, What):  # fields of the last base come first
    """Run methods x seeds and make one table, with the gain over plain cross-entropy.

    What is finished already is kept, what was stopped goes on: give the same command again. Cross-entropy is added as
    the baseline, and two-stage methods start from it.

    Any other --NAME VALUE is a field of the budget, such as --lr or --batch-size, or an option of those methods that
    have it, such as --tau or --ldam.max-m.
    """


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments, options, _ = parse_open(Compare, "compare", words)
    names = [name.strip() for name in arguments.methods.split(",") if name.strip()]
    if not names:
        raise UsageError("--methods is empty; it needs at least one name", fix="for example --methods ldam+drw,bsce")
    arguments.check()
    if arguments.seeds < 1:
        raise UsageError(f"seeds is {arguments.seeds}; it must be at least 1")
    check_data(arguments.data)
    cells, outcomes, out = _run_grid(arguments, names, options)
    table = tabulate(outcomes, names)
    if arguments.json:
        say_json({**to_plain(table), "out": str(out), "runs": [as_plain(outcome) for outcome in outcomes]})
    else:
        _show(table, out)
    return status(outcomes, cells)


def _run_grid(
    arguments: Compare, names: Sequence[str], options: dict[str, str]
) -> tuple[list[Cell], list[Outcome], Path]:
    from longtail import methods
    from longtail.benchmark import grid

    wanted = grid.methods_of(names)
    methods.check_options(wanted, options, flags(Compare))
    check_place(arguments.out, arguments.data)
    early.check_request(arguments, arguments.data, grid.shares_of(wanted, arguments.asked(options)).items())
    if arguments.ray is None:  # on a cluster, the machine is another
        early.check_machine(arguments.device, arguments.threads, jobs=arguments.jobs, quiet=arguments.quiet)
    machine = arguments.share(**arguments.machine())
    data = arguments.load_data(arguments.data)
    out = place(arguments.out, "compare", data)
    asked, source = arguments.asked(options), arguments.source(arguments.data)
    cells = grid.plan(data, names, range(arguments.seeds), out, options=asked, source=source, **arguments.request())
    outcomes = run_all(
        cells,
        data,
        arguments,
        machine,
        quiet=arguments.quiet,
        heard=lambda outcomes: write(tabulate(outcomes, names), outcomes, out),
    )
    return cells, outcomes, out


def tabulate(outcomes: Sequence[Outcome], names: Sequence[str]) -> Table:
    """Return the table of a grid, methods in the order of their names, with failures as rows."""
    from longtail.benchmark.grid import methods_of

    failures: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.status == "failed":
            config = outcome.cell.config
            failures.setdefault(config.method, []).append(f"seed {config.seed}: {outcome.reason}")
    finished = (outcome.metrics for outcome in outcomes if outcome.metrics is not None)
    return aggregate(finished, failures=failures, order=methods_of(names))


def write(table: Table, outcomes: Sequence[Outcome], out: Path) -> None:
    """Write the table as Markdown, CSV and JSON.

    Raises:
        LongtailError: The folder cannot be written.
    """
    if not is_main():
        return
    document = {**to_plain(table), "runs": [as_plain(outcome) for outcome in outcomes]}
    texts = {"md": to_markdown(table), "csv": to_csv(table), "json": json.dumps(document, indent=1) + "\n"}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            (out / f"comparison.{suffix}").write_text(text, encoding="utf-8")
    except OSError as error:
        raise LongtailError(f"the comparison cannot be written to {out}: {error.strerror}") from error


def _show(table: Table, out: Path) -> None:
    say(f"{table.title}; mean ± std over seeds, then the gain over {table.baseline}")
    shown_table = RichTable(box=SIMPLE)
    shown_table.add_column("method", no_wrap=True)
    for name in SCORES:
        shown_table.add_column(TITLES[name], justify="right")
    for row in table.rows:
        shown_table.add_row(row.method, *(_cell(row.scores[name]) for name in SCORES))
    say_table(shown_table)
    for row in table.rows:
        for reason in row.failures:
            say(f"{row.method} failed, {reason}")
    say(f"table  {out / 'comparison.md'}, .csv, .json")


def _cell(summary: Summary | None) -> Text:
    if summary is None:
        return Text("n/a")
    gain = signed(summary.gain)
    change = round(summary.gain or 0.0, 1)
    style = "green" if change > 0 else "red" if change < 0 else "dim"
    return Text.assemble(str(summary), (f" {gain:>5}" if gain else " " * 6, style))
