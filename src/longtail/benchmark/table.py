"""Runs to rows: mean and standard deviation over seeds, and the gain over plain cross-entropy."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longtail.errors import UsageError

Metrics = Mapping[str, Any]

SCORES = ("top1", "many", "medium", "few")
TITLES = {"top1": "top-1", "many": "many", "medium": "medium", "few": "few"}
BASELINE = "ce"
# What must be equal in all runs of a table; class_counts stands for the profile and the imbalance factor together.
_SHARED = ("dataset", "imbalance", "protocol", "epochs", "class_counts")


@dataclass(frozen=True)
class Summary:
    """A score over seeds.

    Attributes:
        mean: Mean, in percent.
        std: Standard deviation of the sample (ddof 1); None for one seed.
        gain: Mean difference to the baseline over the seeds that both have; None without any.
    """

    mean: float
    std: float | None
    gain: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Attributes:
        method: Its name.
        seeds: Seeds of the runs behind the numbers.
        scores: By name; None where the group of classes is empty or no run is finished.
        failures: Why runs are missing, one line each.
    """

    method: str
    seeds: tuple[int, ...]
    scores: Mapping[str, Summary | None]
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Methods on one data set under one protocol.

    Attributes:
        about: What all runs share: ``dataset``, ``imbalance``, ``protocol``, ``epochs``, ``class_counts``; empty
            where no run is finished.
        rows: One per method.
        baseline: The method that gains are measured from.
    """

    about: Mapping[str, Any]
    rows: tuple[Row, ...]
    baseline: str = BASELINE

    @property
    def title(self) -> str:
        """One line that says what was run."""
        if not self.about:
            return "no finished runs"
        counts = [len(row.seeds) for row in self.rows]
        few, most = min(counts), max(counts)
        seeds = "1 seed" if most == few == 1 else f"{most} seeds" if most == few else f"{few} to {most} seeds"
        a = self.about
        return f"{a['dataset']}, imbalance {a['imbalance']:g}, protocol {a['protocol']}, {a['epochs']} epochs, {seeds}"


def aggregate(
    runs: Iterable[Metrics],
    *,
    failures: Mapping[str, Sequence[str]] | None = None,
    order: Sequence[str] = (),
    baseline: str = BASELINE,
) -> Table:
    """Average the seeds of each method.

    Args:
        runs: Contents of ``metrics.json``.
        failures: Reasons of failed runs by method; a method without any finished run still gets its row.
        order: Methods in the order of the rows; others follow in the order of their runs.
        baseline: The method that gains are measured from.

    Raises:
        UsageError: Runs differ in data set, imbalance, protocol, epochs or class counts, or one seed stands twice.
    """
    by_method: dict[str, dict[int, Metrics]] = {}
    about: dict[str, Any] = {}
    for run in runs:
        shared = {name: run[name] for name in _SHARED}
        about = about or shared
        _check_shared(about, shared, run)
        seeds = by_method.setdefault(run["method"], {})
        if run["seed"] in seeds:
            raise UsageError(f"two runs of {run['method']} have seed {run['seed']}; a table takes one of each")
        seeds[run["seed"]] = run
    reasons = failures or {}
    for method in reasons:
        by_method.setdefault(method, {})
    base = by_method.get(baseline, {})
    shown = [m for m in order if m in by_method] + [m for m in by_method if m not in order]
    rows = tuple(_row(method, by_method[method], base, reasons.get(method, ())) for method in shown)
    return Table(about, rows, baseline)


def _check_shared(first: Mapping[str, Any], other: Mapping[str, Any], run: Metrics) -> None:
    for name in _SHARED:
        if first[name] != other[name]:
            raise UsageError(
                f"runs of different {name.replace('_', ' ')} cannot stand in one table: "
                f"{first[name]} and, for {run['method']} seed {run['seed']}, {other[name]}",
                fix="make one table for each",
            )


def summarise(values: Sequence[float], gain: float | None = None) -> Summary:
    """Return mean and standard deviation of some values, with a gain that is known already."""
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, gain)


def _row(method: str, runs: Mapping[int, Metrics], base: Mapping[int, Metrics], failures: Sequence[str]) -> Row:
    scores = {name: _summary(name, runs, base) for name in SCORES}
    return Row(method, tuple(sorted(runs)), scores, tuple(failures))


def _summary(name: str, runs: Mapping[int, Metrics], base: Mapping[int, Metrics]) -> Summary | None:
    values = [run[name] for run in runs.values()]
    if not values or None in values:
        return None
    both = sorted(set(runs) & set(base))
    gain = None
    if both and base is not runs:
        gain = statistics.fmean(runs[seed][name] - base[seed][name] for seed in both)
    return summarise(values, gain)


def signed(gain: float | None) -> str:
    """Return a gain with its sign, or nothing."""
    return "" if gain is None else f"{round(gain, 1) + 0.0:+.1f}"  # + 0.0: no minus sign before a zero


def to_markdown(table: Table) -> str:
    """Render a table as Markdown: scores in percent, then the gains over the baseline."""
    gains = [f"{TITLES[name]} over {table.baseline}" for name in SCORES]
    header = ["method", "seeds", *(TITLES[name] for name in SCORES), *gains]
    lines = [f"{table.title}. Accuracy in percent, mean ± standard deviation over seeds.", ""]
    lines += [_line(header), _line(["---"] * len(header))]
    for row in table.rows:
        cells = [str(row.scores[name] or "n/a") for name in SCORES]
        changes = [signed(s.gain) if (s := row.scores[name]) else "" for name in SCORES]
        lines.append(_line([row.method, str(len(row.seeds)), *cells, *changes]))
    lines += [f"\n{row.method}: failed, {reason}" for row in table.rows for reason in row.failures]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_csv(table: Table) -> str:
    """Render a table as CSV with full precision; an empty cell stands for n/a."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    parts = ("mean", "std", "gain")
    writer.writerow(["method", "seeds", *(f"{name}_{part}" for name in SCORES for part in parts), "failures"])
    for row in table.rows:
        cells = [getattr(row.scores[name], part, None) for name in SCORES for part in parts]
        writer.writerow([row.method, len(row.seeds), *cells, "; ".join(row.failures)])
    return buffer.getvalue()


def to_plain(table: Table) -> dict[str, Any]:
    """Return a table as plain values, ready for JSON."""
    rows = [
        {
            "method": row.method,
            "seeds": list(row.seeds),
            **{name: vars(s) if (s := row.scores[name]) else None for name in SCORES},
            "failures": list(row.failures),
        }
        for row in table.rows
    ]
    return {**table.about, "baseline": table.baseline, "rows": rows}
