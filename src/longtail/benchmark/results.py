"""The results page of the documentation, generated from committed results.

    python -m longtail.benchmark.results results docs/results.md [README.md]      write the page, fill the readme
    python -m longtail.benchmark.results collect RUN... results       copy finished runs into the results

A result is one JSON file named ``DATASET-ifIF-METHOD-PROTOCOL-sSEED.json``: the run's metrics, its configuration, and
what made it (versions, commit, command).
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from longtail.benchmark import published
from longtail.benchmark.table import SCORES, TITLES, Row, Table, aggregate
from longtail.config import RunConfig, read_config
from longtail.errors import LongtailError, UsageError
from longtail.request import usual_budget

_NAMES = {"cifar10": "CIFAR-10-LT", "cifar100": "CIFAR-100-LT", "digits": "Handwritten digits"}
_INTRO = """\
# Results

Generated from `results/` by `make docs-results`; do not edit. Top-1 accuracy in percent on the balanced test set, at
the last epoch; nothing was chosen by looking at the test set. Many: classes with more than 100 training images; medium:
20 to 100; few: fewer than 20. ± is the standard deviation over seeds. "Best epoch" is the highest test accuracy of any
epoch looked at, which is what most papers report; it stands here for comparison only. "Published" is the range of the
numbers listed under the table, with budgets of their own. The commands shown make a run again; what was really typed
is in its file as `made_by.command`. Times in the files are of machines that did other work too.
"""


def collect(run_folder: str | Path, results_dir: str | Path) -> Path:
    """Copy the result of a finished run into the committed results.

    Args:
        run_folder: A finished run.
        results_dir: Where the file is written; an older result of the same name is replaced.

    Returns:
        The file.

    Raises:
        LongtailError: The folder holds no finished run.
    """
    folder = Path(run_folder)
    config, more = read_config(folder)
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LongtailError(
            f"{folder} is not finished: it has no metrics.json", fix=f"longtail train --resume --out {folder}"
        ) from None
    except ValueError as error:
        raise LongtailError(f"{folder / 'metrics.json'} cannot be read: {error}") from error
    for other in ("stage1", "teacher"):
        if metrics.get(other):
            metrics[other] = PurePath(metrics[other]).name
    made_by = dict(more.get("made_by", {}))
    made_by["command"] = _without_folders(made_by.get("command", ""))
    runtime = more.get("runtime") or {}
    content = {
        "command": command_of(config, runtime),
        "metrics": metrics,
        "config": asdict(config),
        "runtime": runtime,
        "made_by": made_by,
    }
    target = Path(results_dir) / (
        f"{config.dataset}-if{config.imbalance:g}-{config.method}-{config.protocol}-s{config.seed}.json"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return target


def command_of(config: RunConfig, runtime: Mapping[str, Any]) -> str:
    """Return the command that makes a run, whatever way it was started: all that differs from the defaults."""
    words = ["longtail", "train", config.dataset, "--method", config.method, "--imbalance", f"{config.imbalance:g}"]
    words += ["--protocol", config.protocol, "--seed", str(config.seed)]
    optional = {"profile": "exp", "subset_seed": 0, "dev_per_class": 0, "teacher": None}
    changed = {k: getattr(config, k) for k, default in optional.items() if getattr(config, k) != default}
    usual = asdict(usual_budget(config.dataset, config.method, config.protocol))
    changed |= {k: v for k, v in config.budget.items() if _plain(v) != _plain(usual[k])}
    changed |= config.options
    changed |= {name: runtime[name] for name in ("precision", "threads") if name in runtime}
    if "compile" in runtime:
        changed["compile"] = "on" if runtime["compile"] else "off"
    for name, value in changed.items():
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return shlex.join(words)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _without_folders(command: str) -> str:
    """Shorten absolute paths to their last part: whose machine it was is nobody's business."""

    def short(word: str) -> str:
        flag, equals, value = word.rpartition("=")
        return flag + equals + (PurePath(value).name if PurePath(value).is_absolute() else value)

    return shlex.join(short(word) for word in shlex.split(command))


def read(results_dir: str | Path) -> list[dict[str, Any]]:
    """Read all results, ordered by file name.

    Raises:
        LongtailError: A file is not a result.
    """
    results = []
    for path in sorted(Path(results_dir).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            results.append({key: content[key] for key in ("command", "metrics", "config", "runtime", "made_by")})
        except (ValueError, KeyError, TypeError) as error:
            raise LongtailError(f"{path} is not a result of a run: {type(error).__name__} {error}") from error
    return results


def page(results: Iterable[Mapping[str, Any]], pages: frozenset[str] = frozenset()) -> str:
    """Return the results page.

    Args:
        results: From `read`.
        pages: Names of the methods and modifiers that have a page under ``methods/``.
    """
    sections: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        m = result["metrics"]
        key = (m["dataset"], m["imbalance"], result["config"]["profile"], m["protocol"], m["epochs"])
        sections.setdefault(key, []).append(result)
    parts = [_INTRO]
    parts += [_section(sections[key], pages) for key in sorted(sections)]
    if not sections:
        parts.append("No results yet.\n")
    return "\n".join(parts)


def fill(text: str, results: Iterable[Mapping[str, Any]]) -> str:
    """Put the tables of CIFAR-100-LT at imbalance 100 between the marks of a text.

    Raises:
        LongtailError: The text has no marks.
    """
    begin, end = "<!-- results:begin -->", "<!-- results:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise LongtailError(f"the text has no {begin} ... {end}")
    parts = []
    for protocol in ("published", "common", "quick"):
        chosen = [
            r
            for r in results
            if (r["metrics"]["dataset"], r["metrics"]["imbalance"]) == ("cifar100", 100)
            and r["metrics"]["protocol"] == protocol
        ]
        if chosen:
            table = aggregate(r["metrics"] for r in chosen)
            about = table.about
            known = {row.method: _published(row.method, about, chosen[0]["config"]["profile"]) for row in table.rows}
            title = f"CIFAR-100-LT, imbalance 100, protocol `{protocol}` ({about['epochs']} epochs), top-1 in percent:"
            parts += ["", title, "", *_rows(table, chosen, known, frozenset())]
    return before + begin + "\n".join([*parts, ""]) + "\n" + end + after


def _section(results: Sequence[Mapping[str, Any]], pages: frozenset[str]) -> str:
    table = aggregate(result["metrics"] for result in results)
    about, profile = table.about, results[0]["config"]["profile"]
    name = _NAMES.get(about["dataset"], about["dataset"])
    step = ", step profile" if profile == "step" else ""
    title = (
        f"## {name}, imbalance {about['imbalance']:g}{step}: protocol `{about['protocol']}`, {about['epochs']} epochs"
    )
    known = {row.method: _published(row.method, about, profile) for row in table.rows}
    parts = [title, "", *_rows(table, results, known, pages), "", *_sources(known), *_machines(results)]
    return "\n".join(parts) + "\n"


def _published(method: str, about: Mapping[str, Any], profile: str) -> list[published.Published]:
    return published.find(method, about["dataset"], about["imbalance"]) if profile == "exp" else []


def _rows(
    table: Table,
    results: Sequence[Mapping[str, Any]],
    known: Mapping[str, Sequence[published.Published]],
    pages: frozenset[str],
) -> list[str]:
    header = ["Method", "Seeds", *(TITLES[name].capitalize() for name in SCORES), "Best epoch", "Published"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for row in sorted(table.rows, key=_top1, reverse=True):
        best = [r["metrics"]["best_test_epoch_top1"] for r in results if r["metrics"]["method"] == row.method]
        looked = [value for value in best if value is not None]
        cells = [str(row.scores[name] or "n/a") for name in SCORES]
        mean_best = f"{sum(looked) / len(looked):.1f}" if looked else "n/a"
        name = "+".join(f"[{p}](methods/{p}.md)" if p in pages else p for p in row.method.split("+"))
        lines.append([name, str(len(row.seeds)), *cells, mean_best, published.span(known[row.method]) or "-"])
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _top1(row: Row) -> float:
    score = row.scores["top1"]
    return score.mean if score else 0.0


def _sources(known: Mapping[str, Sequence[published.Published]]) -> list[str]:
    lines = []
    for method, rows in known.items():
        told = [f"{r.value:g}, {r.source}" + (f" ({r.note})" if r.note else "") for r in rows]
        if told:
            lines.append(f"- `{method}`: " + "; ".join(told) + ".")
    return ["Published numbers:", "", *lines, ""] if lines else []


def _machines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commands behind a section, and what they ran on."""
    made = [result["made_by"] for result in results]
    commands = [result["command"] for result in results]
    machines = dict.fromkeys(
        f"{m.get('processor', '?')}, torch {m.get('torch', '?')}, longtail {m.get('longtail', '?')} at commit "
        f"{_short(m.get('commit'))}"
        for m in made
    )
    return ["Made with:", "", "```console", *commands, "```", "", *(f"- {machine}" for machine in machines)]


def _short(commit: str | None) -> str:
    """Shorten a commit, and keep the sign of uncommitted changes."""
    name, plus, changes = (commit or "unknown").partition("+")
    return name[:12] + plus + changes


def main(words: Sequence[str]) -> int:
    """Run the module as a script; see its docstring."""
    try:
        if len(words) >= 3 and words[0] == "collect":
            for run in words[1:-1]:
                print(collect(run, words[-1]))
            return 0
        if len(words) not in (2, 3):
            raise UsageError(
                "the results page needs two or three arguments", fix="RESULTS PAGE [README], or collect RUN... RESULTS"
            )
        target = Path(words[1])
        pages = frozenset(path.stem for path in (target.parent / "methods").glob("*.md"))
        target.parent.mkdir(parents=True, exist_ok=True)
        results = read(words[0])
        target.write_text(page(results, pages), encoding="utf-8")
        for readme in map(Path, words[2:]):
            readme.write_text(fill(readme.read_text(encoding="utf-8"), results), encoding="utf-8")
    except LongtailError as error:
        print(f"longtail: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
