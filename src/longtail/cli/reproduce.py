"""`longtail reproduce`: a published table, ours beside theirs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.box import SIMPLE
from rich.table import Table as RichTable
from tyro.conf import Positional, arg

from longtail.cli.arguments import parse
from longtail.cli.grid import Spread, as_plain, run_all, status
from longtail.cli.output import is_main, note, say, say_json, say_table
from longtail.cli.setup import Unset
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.benchmark.grid import Cell, Outcome
    from longtail.benchmark.reproduction import Reproduction, Wanted


@dataclass(frozen=True)
class What:
    """The flags that stand first in the help."""

    table: Positional[Unset[str]] = None
    """Name of a published table, such as deck-003-cifar100; without one, all are listed"""
    dry_run: Annotated[bool, arg(help_behavior_hint="")] = False
    """List the runs and the time they will take here, and train nothing"""
    no_measure: Annotated[bool, arg(help_behavior_hint="")] = False
    """With --dry-run: list the runs at once, without their time"""
    methods: Unset[str] = None
    """Only the rows of these methods, separated by commas"""
    imbalance: Unset[float] = None
    """Only the columns of this imbalance factor"""
    seeds: int = 3
    """Number of training seeds: 0, 1, ..."""
    protocol: str = "published"
    """Budget: published (the papers'), common or quick"""
    epochs: Unset[int] = None
    """Epochs (default: the protocol's)"""
    out: str = "runs/reproduce"
    """Folder of the run folders, which tables share, and of TABLE.md, .csv, .tex, .html and .json"""


@dataclass(frozen=True)
class Reproduce(Spread, What):  # fields of the last base come first
    """Run the rows of a published table that can be run, and set ours beside theirs.

    What is finished already is kept, what was stopped goes on: give the same command again. A row whose method or data
    are not there is listed with the reason. The exit status is 0 when every run is done.
    """

    device: str = "auto"
    """cpu, cuda, cuda:N or auto"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the network's arithmetic; auto takes the faster one"""
    threads: str = "auto"
    """CPU threads of each run; auto tries which number is fastest now"""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether the network is compiled; auto does it where the run is long enough to pay"""
    track: Unset[Literal["tensorboard", "wandb", "mlflow"]] = None
    """Experiment tracker that hears of each run, an extra of the same name (docs/tracking.md)"""
    data_root: Unset[str] = None
    """Folder of the data sets (default: LONGTAIL_DATA, else ./.data)"""
    download: Annotated[bool, arg(help_behavior_hint="")] = False
    """Fetch CIFAR where it is missing"""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print the result, or the error, as JSON on stdout"""
    quiet: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show no progress"""


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments = parse(Reproduce, "reproduce", words)
    arguments.check()
    if arguments.table is None:
        _list(as_json=arguments.json)
        return 0
    from longtail.benchmark.reproduction import plan

    reproduction = plan(arguments.table, _wanted(arguments), Path(arguments.out))
    if arguments.dry_run:
        _show_plan(arguments, reproduction)
        return 0
    outcomes = _run(arguments, reproduction)
    write(reproduction, Path(arguments.out))
    if arguments.json:
        from longtail.benchmark.render import to_plain

        runs = [as_plain(outcome) for outcome in outcomes]
        say_json({**to_plain(reproduction), "runs": runs, "left": len(reproduction.cells) - len(outcomes)})
    else:
        _show(reproduction, outcomes, Path(arguments.out))
    return status(outcomes, reproduction.cells)


def _wanted(arguments: Reproduce) -> Wanted:
    from longtail.benchmark.reproduction import Wanted
    from longtail.methods import canonical

    if arguments.seeds < 1:
        raise UsageError(f"seeds is {arguments.seeds}; it must be at least 1")
    return Wanted(
        seeds=range(arguments.seeds),
        protocol=arguments.protocol,
        epochs=arguments.epochs,
        methods=[canonical(name.strip()) for name in (arguments.methods or "").split(",") if name.strip()],
        imbalance=arguments.imbalance,
        precision=arguments.precision,
        root=arguments.data_root,
    )


def _list(*, as_json: bool) -> None:
    from longtail.benchmark import published

    tables = [published.table(name) for name in published.names()]
    if as_json:
        say_json([{"table": t.name, "title": t.title, "source": t.source, "numbers": len(t.cells)} for t in tables])
        return
    shown = RichTable(box=None, show_header=False, padding=(0, 2))
    for table in tables:
        shown.add_row(table.name, table.title, f"{len(table.cells)} numbers")
    say_table(shown)


def _run(arguments: Reproduce, reproduction: Reproduction) -> list[Outcome]:
    from longtail import tracking

    tracking.check(arguments.track)
    _check_data(arguments, reproduction.cells)
    machine = arguments.share(arguments.device, arguments.threads, arguments.compile, arguments.track)
    out = Path(arguments.out)
    return run_all(
        reproduction.cells,
        None,
        arguments,
        machine,
        quiet=arguments.quiet,
        heard=lambda outcomes: write(reproduction, out),
    )


def _check_data(arguments: Reproduce, cells: Sequence[Cell]) -> None:
    """Find missing data before the first run, and fetch what can be fetched."""
    from longtail import data

    for name in dict.fromkeys(cell.source.name for cell in cells if not cell.finished):
        if name in data.DATASETS:
            data.load(name, root=arguments.data_root, download=arguments.download)


def write(reproduction: Reproduction, out: Path) -> None:
    """Write the table in all forms.

    Raises:
        LongtailError: The folder cannot be written.
    """
    from longtail.benchmark import render

    if not is_main():
        return
    texts = {
        "md": render.to_markdown(reproduction),
        "csv": render.to_csv(reproduction),
        "tex": render.to_latex(reproduction),
        "html": render.to_html(reproduction),
        "json": json.dumps(render.to_plain(reproduction), indent=1) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            (out / f"{reproduction.table.name}.{suffix}").write_text(text, encoding="utf-8")
    except OSError as error:
        raise LongtailError(f"the table cannot be written to {out}: {error.strerror}") from error


def _show(reproduction: Reproduction, outcomes: Sequence[Outcome], out: Path) -> None:
    from longtail.benchmark import render

    say(render.title(reproduction))
    titles = render.columns(reproduction)
    shown = RichTable(box=SIMPLE)
    for column in ("row", "method"):
        shown.add_column(column, no_wrap=True)
    for column in titles:
        shown.add_column(column, justify="right")
    for row, cells in reproduction.rows():
        texts = [render.cell_text(cells.get(column)) for column in titles]
        shown.add_row(row.label, render.method_of(row), *texts)
    say_table(shown)
    for line in render.remarks(reproduction) + render.notes(reproduction):
        say(line)
    for outcome in outcomes:
        if outcome.status == "failed":
            say(f"{outcome.cell.name} failed, {outcome.reason}")
    say(f"table  {out / reproduction.table.name}.md, .csv, .tex, .html, .json")


def _show_plan(arguments: Reproduce, reproduction: Reproduction) -> None:
    from longtail.benchmark import render

    seconds = _seconds(arguments, reproduction.cells)
    if arguments.json:
        say_json(_plan_as_plain(reproduction, seconds))
        return
    shown = RichTable(box=SIMPLE)
    timed = seconds or any(cell.finished for cell in reproduction.cells)  # the column also says which are done
    titles = ("data", "method", "seed", "epochs", "run folder", *(("time",) if timed else ()))
    for column in titles:
        shown.add_column(column, no_wrap=True, justify="right" if column in ("seed", "epochs", "time") else "left")
    for cell in reproduction.cells:
        config = cell.config
        left = "done" if cell.finished else clock(seconds.get(cell.folder))
        options = " ".join(f"{key}={value}" for key, value in config.options.items())
        name = f"{config.method} {options}".strip()
        place = f"{config.dataset} IF {config.imbalance:g}"
        row = (place, name, str(config.seed), str(sum(cell.stage_epochs)), cell.folder.name, left)
        shown.add_row(*row[: len(titles)])
    if reproduction.cells:
        say_table(shown)
    for line in render.notes(reproduction):
        say(line)
    done = sum(cell.finished for cell in reproduction.cells)
    total = f"; about {clock(sum(seconds.values()))} of training left, one run after the other" if seconds else ""
    say(f"{len(reproduction.cells)} runs, {done} done{total}")
    if seconds:
        say("times: a few steps of plain training, measured now, times what each method's card says that it costs")


def _plan_as_plain(reproduction: Reproduction, seconds: dict[Path, float]) -> dict[str, Any]:
    runs = [
        {
            "dataset": cell.config.dataset,
            "imbalance": cell.config.imbalance,
            "method": cell.config.method,
            "options": cell.config.options,
            "seed": cell.config.seed,
            "epochs": sum(cell.stage_epochs),
            "path": str(cell.folder),
            "finished": cell.finished,
            "seconds": seconds.get(cell.folder),
        }
        for cell in reproduction.cells
    ]
    without = [
        {"row": c.published.row, "column": c.column, "reason": c.reason} for c in reproduction.comparisons if c.reason
    ]
    return {"table": reproduction.table.name, "runs": runs, "not_run": without, "seconds": sum(seconds.values())}


def _seconds(arguments: Reproduce, cells: Sequence[Cell]) -> dict[Path, float]:
    if arguments.no_measure:
        return {}
    from longtail.benchmark.estimate import seconds_left

    machine = arguments.share(arguments.device, arguments.threads, arguments.compile)
    return seconds_left(cells, machine, tell=(lambda line: None) if arguments.quiet else note)


def clock(seconds: float | None) -> str:
    """Return a time as ``1 h 05 min``, ``5 min`` or ``40 s``; empty where it is not known."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
