"""A reproduced table as Markdown, CSV, LaTeX, HTML and plain values."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from typing import Any

from longtail.benchmark.collect import short_commit
from longtail.benchmark.published import Published, Row
from longtail.benchmark.reproduction import Comparison, Reproduction
from longtail.benchmark.table import Summary, signed

_STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.above { color: #1a7f37; } .below { color: #cf222e; } .none { opacity: .6; }
@media (prefers-color-scheme: dark) { .above { color: #3fb950; } .below { color: #ff7b72; } }
pre { overflow-x: auto; }"""


def title(reproduction: Reproduction) -> str:
    """Return one line that says what stands beside what."""
    wanted, seeds = reproduction.wanted, len(reproduction.wanted.seeds)
    epochs = "" if wanted.epochs is None else f", {wanted.epochs} epochs"
    number = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"{reproduction.table.title}: printed, and ours under protocol {wanted.protocol}{epochs}, {number}"


def remarks(reproduction: Reproduction) -> list[str]:
    """Return what must be known to read the table."""
    lines = [
        "Accuracy in percent. Ours: the last epoch, mean ± standard deviation over seeds; the difference is ours minus "
        "printed. Most papers print the best epoch on the test set, which is higher."
    ]
    if any(c.published.metric == "error" for c in reproduction.comparisons):
        lines.append("The source prints errors; they are turned into accuracies here.")
    if reproduction.wanted.protocol != "published" or reproduction.wanted.epochs is not None:
        lines.append("Ours has another budget than the published one: the differences say little.")
    if reproduction.table.note:
        lines.append(f"Of the table: {reproduction.table.note}.")
    return lines


def notes(reproduction: Reproduction) -> list[str]:
    """Return the notes on rows, and why rows have no runs; a reason that rows share is told once, with their names."""
    lines = []
    without: dict[str, dict[str, None]] = {}
    for row, cells in reproduction.rows():
        for comparison in cells.values():
            if comparison.reason:
                without.setdefault(comparison.reason, {})[row.label] = None
        lengths = dict.fromkeys(length for c in cells.values() if (length := _other_length(c)))
        told = [*([row.note] if row.note else []), *lengths]
        if told:
            lines.append(f"{row.label}: {'; '.join(told)}")
    return lines + [_not_run(reason, list(labels)) for reason, labels in without.items()]


def _not_run(reason: str, labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return f"{labels[0]}: not run: {reason}"
    return f"not run, {len(labels)} rows: {reason}: {', '.join(labels)}"


def _other_length(comparison: Comparison) -> str:
    """Say where a number was printed of a run of another length than ours; nothing where it was not."""
    printed, cells = comparison.published.epochs, comparison.cells
    ours = cells[0].config.budget["epochs"] if cells else printed
    return "" if printed in (None, ours) else f"printed of {printed} epochs, ours has {ours}"


def commands(reproduction: Reproduction) -> list[tuple[str, str]]:
    """Return (command, how) of all finished runs, each once: the command of the first seed, and the rest in words."""
    made: dict[str, str] = {}
    for comparison in reproduction.comparisons:
        how = comparison.how()
        if how is None:
            continue
        more = ", ".join(map(str, how["seeds"]))
        commits = ", ".join(short_commit(commit) for commit in how["commits"])
        made[how["command"]] = f"seeds {more}; commit {commits}; {'; '.join(how['devices'])}"
    return list(made.items())


def columns(reproduction: Reproduction) -> list[str]:
    """Return the titles of the columns that were asked for."""
    asked = {comparison.column for comparison in reproduction.comparisons}
    return [column for column in reproduction.table.columns if column in asked]


def method_of(row: Row) -> str:
    """Return our name of a row's method, with its options."""
    return " ".join([row.method, *(f"{name}={value}" for name, value in row.options)])


def cell_text(comparison: Comparison | None) -> str:
    """Return ``printed / ours (difference)``, as much of it as there is."""
    if comparison is None:
        return ""
    ours = comparison.ours()
    beside = f" / {ours} ({signed(ours.gain)})" if ours else ""
    return f"{_percent(comparison.published)}{beside}"


def _percent(number: Published) -> str:
    return f"{number.value:.2f}".rstrip("0").rstrip(".") if number.value % 0.1 else f"{number.value:.1f}"


def to_markdown(reproduction: Reproduction) -> str:
    """Render as Markdown."""
    titles = columns(reproduction)
    header = ["row", "method", *(f"{column}: printed / ours (difference)" for column in titles)]
    lines = [f"# {reproduction.table.name}", "", f"{title(reproduction)}.", "", *remarks(reproduction), ""]
    lines += [_line(header), _line(["---", "---", *["---:"] * len(titles)])]
    for row, cells in reproduction.rows():
        lines.append(_line([row.label, method_of(row), *(cell_text(cells.get(column)) for column in titles)]))
    lines += ["", *(f"- {note}" for note in notes(reproduction))]
    if made := commands(reproduction):
        lines += ["", "Made with:", "", "```console"]
        lines += [text for command, how in made for text in (f"# {how}", command)]
        lines += ["```"]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_plain(reproduction: Reproduction) -> dict[str, Any]:
    """Return plain values, ready for JSON."""
    rows = [_plain(comparison) for comparison in reproduction.comparisons]
    table = reproduction.table
    return {"table": table.name, "title": table.title, "source": table.source, "note": table.note, "rows": rows}


def _plain(comparison: Comparison) -> dict[str, Any]:
    number, ours, how = comparison.published, comparison.ours(), comparison.how() or {}
    return {
        "row": number.row,
        "column": comparison.column,
        "method": number.method,
        "options": dict(number.options),
        "dataset": number.dataset,
        "imbalance": number.imbalance,
        "score": number.score,
        "metric": number.metric,
        "printed": number.printed,
        "published": number.value,
        "ours": None if ours is None else ours.mean,
        "std": None if ours is None else ours.std,
        "difference": None if ours is None else ours.gain,
        "seeds": how.get("seeds", []),
        "protocol": how.get("protocol"),
        "epochs": how.get("epochs"),
        "command": how.get("command"),
        "commits": how.get("commits", []),
        "devices": how.get("devices", []),
        "reason": comparison.reason,
        "source": number.source,
        "tag": number.tag,
        "published_protocol": number.protocol,
        "published_epochs": number.epochs,
        "backbone": number.backbone,
        "augmentation": number.augmentation,
        "note": number.note,
    }


def to_csv(reproduction: Reproduction) -> str:
    """Render as CSV, one printed number a line, with full precision."""
    rows = to_plain(reproduction)["rows"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["table", *rows[0]] if rows else ["table"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({"table": reproduction.table.name, **{key: _flat(value) for key, value in row.items()}})
    return buffer.getvalue()


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return " ".join(f"{key}={each}" for key, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else value


def to_latex(reproduction: Reproduction) -> str:
    """Render as LaTeX; needs the package booktabs."""
    titles = columns(reproduction)
    spans = " & ".join(rf"\multicolumn{{3}}{{c}}{{{_tex(column)}}}" for column in titles)
    rules = "".join(rf"\cmidrule(lr){{{2 + 3 * k}-{4 + 3 * k}}}" for k in range(len(titles)))
    lines = [f"% {title(reproduction)}", rf"\begin{{tabular}}{{l{'rrr' * len(titles)}}}", r"\toprule"]
    lines += [rf"Method & {spans} \\", rules, " & ".join(["", *["printed & ours & diff."] * len(titles)]) + r" \\"]
    lines += [r"\midrule"]
    for row, cells in reproduction.rows():
        parts = [_tex(row.label)]
        for column in titles:
            parts += _tex_cells(cells.get(column))
        lines.append(" & ".join(parts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_cells(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["", "", ""]
    ours = comparison.ours()
    if ours is None:
        return [_percent(comparison.published), "", ""]
    spread = "" if ours.std is None else rf" $\pm$ {ours.std:.1f}"
    return [_percent(comparison.published), f"{ours.mean:.1f}{spread}", f"${signed(ours.gain)}$"]


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "†": r"\dag{}"}
    special |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"‡": r"\ddag{}", "*": "*"}
    return "".join(special.get(sign, sign) for sign in text)


def to_html(reproduction: Reproduction) -> str:
    """Render as one HTML page that needs nothing else."""
    titles = columns(reproduction)
    head = "".join(f'<th colspan="3">{html.escape(column)}</th>' for column in titles)
    second = "<th>printed</th><th>ours</th><th>difference</th>" * len(titles)
    body = "\n".join(_html_row(row, [cells.get(c) for c in titles]) for row, cells in reproduction.rows())
    said = "".join(f"<p>{html.escape(line)}</p>" for line in remarks(reproduction))
    listed = "".join(f"<li>{html.escape(line)}</li>" for line in notes(reproduction))
    made = "\n".join(f"# {how}\n{command}" for command, how in commands(reproduction))
    how = f"<h2>Made with</h2><pre>{html.escape(made)}</pre>" if made else ""
    name = html.escape(reproduction.table.name)
    return f"""\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title><style>
{_STYLE}
</style></head><body>
<h1>{name}</h1><p>{html.escape(title(reproduction))}.</p>{said}
<div class="wide"><table><thead><tr><th rowspan="2">row</th><th rowspan="2">method</th>{head}</tr>
<tr>{second}</tr></thead><tbody>
{body}
</tbody></table></div>
<ul>{listed}</ul>
{how}
</body></html>
"""


def _html_row(row: Row, cells: Sequence[Comparison | None]) -> str:
    parts = [f"<td>{html.escape(row.label)}</td><td>{html.escape(method_of(row))}</td>"]
    for comparison in cells:
        ours = comparison.ours() if comparison else None
        printed = f"<td>{_percent(comparison.published)}</td>" if comparison else "<td></td>"
        parts.append(printed + _html_ours(ours))
    kind = ' class="none"' if all(c is None or c.reason for c in cells) else ""
    return f"<tr{kind}>{''.join(parts)}</tr>"


def _html_ours(ours: Summary | None) -> str:
    if ours is None or ours.gain is None:
        return "<td></td><td></td>"
    way = "above" if ours.gain > 0 else "below"
    return f'<td>{ours}</td><td class="{way}">{signed(ours.gain)}</td>'
