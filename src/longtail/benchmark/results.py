"""The results page of the documentation, generated from committed results.

    python -m longtail.benchmark.results results docs/results.md [README.md]      write the page, fill the readme
    python -m longtail.benchmark.results collect RUN... results       copy finished runs into the results

A result is one JSON file named ``DATASET-ifIF-METHOD-PROTOCOL-sSEED.json``, with development set, options and all else
that differs from the defaults behind that: the run's metrics, its configuration, and what made it (versions, commit,
command). What methods cost beside cross-entropy is in ``benchmarks/cost-*.json`` (`longtail.benchmark.cost`), or said
by their cards.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longtail import methods
from longtail.benchmark import cards, cost, orders, published
from longtail.benchmark.collect import collect, device_name, short_commit
from longtail.benchmark.table import SCORES, TITLES, Row, Table, aggregate
from longtail.command import as_text
from longtail.config import RunConfig
from longtail.errors import LongtailError, UsageError

_NAMES = {"cifar10": "CIFAR-10-LT", "cifar100": "CIFAR-100-LT", "digits": "Handwritten digits"}
_INTRO = """\
# Results

Generated from `results/` by `make docs-results`; do not edit. Top-1 accuracy in percent on the balanced test set, at
the last epoch; nothing was chosen by looking at the test set. Many: classes with more than 100 training images; medium:
20 to 100; few: fewer than 20. ± is the standard deviation over seeds. "Best epoch" is the highest test accuracy of any
epoch looked at, which is what most papers report; it stands here for comparison only. "Published" is the range of the
numbers listed under the table that were measured with the usual network and augmentation, with budgets of their own.
"Cost" is the training time relative to plain cross-entropy: with ≈ measured side by side in one process, else what the
method's card says, and - where options or a setup of its own set a row apart from both; times in the files are of
machines that did other work too. The commands shown make a run again;
what was really typed is in its file as `made_by.command`.
"""
_WITHOUT_GPU = """\
## Open points

No run was made on a GPU yet, so that what `--device cuda` gains has not been measured: the aim is a 200-epoch run of
ResNet-32 on CIFAR-100-LT at imbalance 100 in 30 s on an H100 that several runs share. What such a device would refuse
or wait for is tested without one (`tests/training/test_on_a_gpu.py`).
"""


_ABOUT_DEV = [
    "A development set is taken from the full training set before the long tail is cut, as by its authors, which "
    "leaves other images to train on: rows compare within this table. Methods that need the set learn from it what "
    "images are worth, or fine-tune on it; `+dev` trains on it too.",
    "",
]


def read(results_dir: str | Path) -> list[dict[str, Any]]:
    """Read all results, ordered by file name.

    Raises:
        LongtailError: A file is not a result.
    """
    results = []
    for path in sorted(Path(results_dir).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            needed = {key: content[key] for key in ("command", "metrics", "config", "runtime", "made_by")}
            RunConfig.from_plain(needed["config"])
            results.append({"experts": [], "changed_setup": {}, "changed_budget": {}, **content, **needed})
        except (ValueError, KeyError, TypeError) as error:
            raise LongtailError(f"{path} is not a result of a run: {type(error).__name__} {error}") from error
    return results


def page(
    results: Iterable[Mapping[str, Any]],
    pages: frozenset[str] = frozenset(),
    costs: Mapping[str, float] | None = None,
) -> str:
    """Return the results page.

    Args:
        results: From `read`.
        pages: Names of the methods and modifiers that have a page under ``methods/``.
        costs: Measured costs, from `longtail.benchmark.cost.read`.
    """
    sections: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    on_gpu = False
    for result in results:
        on_gpu = on_gpu or str(result["runtime"].get("device")).startswith("cuda")
        m = result["metrics"]
        key = (m["dataset"], m["imbalance"], result["config"]["profile"], m["protocol"], m["epochs"], _held_out(result))
        sections.setdefault(key, []).append(result)
    parts = [_INTRO]
    parts += [_section(sections[key], pages, costs or {}) for key in sorted(sections)]
    if not sections:
        parts.append("No results yet.\n")
    elif not on_gpu:
        parts.append(_WITHOUT_GPU)
    return "\n".join(parts)


def fill(text: str, results: Iterable[Mapping[str, Any]], costs: Mapping[str, float] | None = None) -> str:
    """Put tables of CIFAR-100-LT at imbalance 100, methods at their defaults, between the marks of a text; see `page`.

    Those of the full budgets only: what 24 epochs say needs the words beside it on the page.

    Raises:
        LongtailError: The text has no marks.
    """
    begin, end = "<!-- results:begin -->", "<!-- results:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise LongtailError(f"the text has no {begin} ... {end}")
    parts = []
    for protocol in ("published", "common"):
        chosen = [
            r
            for r in results
            if (r["metrics"]["dataset"], r["metrics"]["imbalance"]) == ("cifar100", 100)
            and r["metrics"]["protocol"] == protocol
            and r["config"]["profile"] == "exp"
            and not _held_out(r)
            and "=" not in label(r)
        ]
        if chosen:
            table = _table(chosen)
            about = table.about
            known = _known(chosen, about, chosen[0]["config"]["profile"])
            title = f"CIFAR-100-LT, imbalance 100, protocol `{protocol}` ({about['epochs']} epochs), top-1 in percent:"
            parts += ["", title, "", *_rows(table, chosen, known, frozenset(), costs)]
    return before + begin + "\n".join([*parts, ""]) + "\n" + end + after


def _table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Average the seeds of a section; variants of a method have rows of their own.

    Raises:
        UsageError: Results of one row differ in more than their seed.
    """
    first: dict[str, RunConfig] = {}
    for result in results:
        # A teacher that makes a difference stands in the label; how often one looked at the test set makes none.
        config = replace(RunConfig.from_plain(result["config"]), seed=0, eval_every=1, teacher=None)
        if differences := config.differences(first.setdefault(label(result), config)):
            raise UsageError(
                f"results of {label(result)} differ in more than their seed: {'; '.join(differences)}",
                fix="keep those of one configuration",
            )
    return aggregate({**result["metrics"], "method": label(result), "class_counts": None} for result in results)


def label(result: Mapping[str, Any]) -> str:
    """Return a row's name: the method, and in parentheses options, setup and budget that set it apart."""
    apart = ", ".join(f"{key}={value}" for key, value in _apart(result).items())
    method: str = result["metrics"]["method"]
    return f"{method} ({apart})" if apart else method


def _apart(result: Mapping[str, Any]) -> dict[str, str]:
    """Return what sets a result apart from others of its method: options, setup, budget; a section has one length."""
    own: Mapping[str, Any] = result["config"].get("options", {})
    changes = {**own, **result.get("changed_setup", {}), **result.get("changed_budget", {})}
    return {key: as_text(value) for key, value in changes.items() if key != "epochs"}


def _held_out(result: Mapping[str, Any]) -> int:
    return result["config"].get("dev_per_class") or 0


def _section(results: Sequence[Mapping[str, Any]], pages: frozenset[str], costs: Mapping[str, float]) -> str:
    table = _table(results)
    about, profile = table.about, results[0]["config"]["profile"]
    name = _NAMES.get(about["dataset"], about["dataset"])
    step = ", step profile" if profile == "step" else ""
    dev = _held_out(results[0])
    held = f", {dev} images a class held out" if dev else ""
    title = f"## {name}, imbalance {about['imbalance']:g}{step}{held}: protocol `{about['protocol']}`, "
    title += f"{about['epochs']} epochs"
    known = _known(results, about, profile)
    parts = [title, "", *(_ABOUT_DEV if dev else []), *_rows(table, results, known, pages, costs), "", *_sources(known)]
    parts += [*_orders(table, results, about, profile), *_missing(table, about, profile), *_machines(results)]
    return "\n".join(parts) + "\n"


def _known(
    results: Sequence[Mapping[str, Any]], about: Mapping[str, Any], profile: str
) -> dict[str, list[published.Published]]:
    """Return what was published for each row with the same options, among them a schedule of its own."""
    known: dict[str, list[published.Published]] = {}
    for result in results:
        found = published.find(result["metrics"]["method"], about["dataset"], about["imbalance"], _apart(result))
        known[label(result)] = [number for number in found if number.is_usual] if profile == "exp" else []
    return known


def _orders(table: Table, results: Sequence[Mapping[str, Any]], about: Mapping[str, Any], profile: str) -> list[str]:
    """Return the orders that the decks report beside ours, and experts beside what they answer together."""
    parts = []
    on_cifar100 = about["dataset"] == "cifar100" and profile == "exp"
    if on_cifar100 and (compared := orders.compare(table.rows, about["imbalance"])):
        parts += ["Orders that published tables report (gains in points; here without a test of significance):", ""]
        parts += [*compared, ""]
    if together := orders.experts((label(result), result) for result in results):
        parts += ["Experts, or branches, alone and together (top-1):", "", *together, ""]
    return parts


def _missing(table: Table, about: Mapping[str, Any], profile: str) -> list[str]:
    """Return the published rows that could be run and have not been; only of the papers' own budget."""
    if about["protocol"] != "published" or profile != "exp":
        return []
    there = {row.method.partition(" (")[0] for row in table.rows}
    known = {*methods.names(), *methods.modifiers()}
    wanted = dict.fromkeys(
        number.method
        for number in published.load()
        if (number.dataset, number.imbalance, number.score) == (about["dataset"], about["imbalance"], "top1")
        and number.method
        and known.issuperset(number.method.split("+"))
    )
    names = ", ".join(f"`{name}`" for name in wanted if name not in there)
    return [f"Published, and not run yet: {names}.", ""] if names else []


def _rows(
    table: Table,
    results: Sequence[Mapping[str, Any]],
    known: Mapping[str, Sequence[published.Published]],
    pages: frozenset[str],
    costs: Mapping[str, float] | None,
) -> list[str]:
    scores = (TITLES[name].capitalize() for name in SCORES)
    header = ["Method", "Seeds", *scores, "Best epoch", "Cost", "Published"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for row in sorted(table.rows, key=_top1, reverse=True):
        of_row = [r for r in results if label(r) == row.method]
        best = [r["metrics"]["best_test_epoch_top1"] for r in of_row]
        looked = [value for value in best if value is not None]
        cells = [str(row.scores[name] or "n/a") for name in SCORES]
        mean_best = f"{sum(looked) / len(looked):.1f}" if looked else "n/a"
        bare, apart, rest = row.method.partition(" (")
        name = "+".join(f"[{p}](methods/{p}.md)" if p in pages else p for p in bare.split("+")) + apart + rest
        told = [_cost(bare, of_row, costs or {}), published.span(known[row.method]) or "-"]
        lines.append([name, str(len(row.seeds)), *cells, mean_best, *told])
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _cost(method: str, of_row: Sequence[Mapping[str, Any]], measured: Mapping[str, float]) -> str:
    """Return what a row costs; rates and decay cost nothing, but what was measured had the default options."""
    if any(r["config"].get("options") or r.get("changed_setup") for r in of_row):
        return "-"
    return f"≈ {measured[method]:.1f}x" if method in measured else cards.cost(method)


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
    told = (line for result in results for line in (result.get("teacher_command"), result["command"]) if line)
    commands = list(dict.fromkeys(told))
    machines = dict.fromkeys(
        f"{device_name(result['runtime'], made)}, torch {made.get('torch', '?')}, longtail {made.get('longtail', '?')} "
        f"at commit {short_commit(made.get('commit'))}"
        for result in results
        for made in [result["made_by"], *result.get("resumed_by", [])]
    )
    return ["Made with:", "", "```console", *commands, "```", "", *(f"- {machine}" for machine in machines)]


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
        results, costs = read(words[0]), cost.read(words[0])
        target.write_text(page(results, pages, costs), encoding="utf-8")
        for readme in map(Path, words[2:]):
            readme.write_text(fill(readme.read_text(encoding="utf-8"), results, costs), encoding="utf-8")
    except LongtailError as error:
        print(f"longtail: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
