"""The first things one asks: is it better than plain training, for which groups, and which of the runs is best."""

from __future__ import annotations

import math

import numpy as np

from longtail.benchmark.table import SCORES, TITLES
from longtail.report.sections.chart import at, details, row, table
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.study import Entry, Study
from longtail.report.sections.words import change, duration, many, percent, points

GROUP_RULES = {
    "many": "over 100 training images",
    "medium": "20 to 100 training images",
    "few": "under 20 training images",
}


def headline(study: Study) -> Markup:
    """Say in sentences and five numbers what came out, for each entry."""
    blocks = [(entry.number, entry.label, join(_lede(study, entry), _cards(study, entry))) for entry in study.entries]
    hint = None
    if study.baseline is None:
        hint = tag(
            "p",
            "No run of plain cross-entropy is among the runs, so gains are not shown. Give one beside them "
            "(longtail train … --method ce).",
            class_="note",
        )
    return tag("section", details(blocks, study.best.number), hint, id="headline", aria_label="In short")


def _lede(study: Study, entry: Entry) -> Markup:
    rival = study.rival(entry)
    gain = _gain(study, entry, "top1")
    sentences = [f"names {percent(entry.mean('top1'))} % of the test images rightly"]
    if rival is not None and gain is not None:
        direction = "more" if gain >= 0 else "fewer"
        sentences[0] += f", {abs(gain):.1f} points {direction} than plain cross-entropy"
    if len(entry.runs) > 1:
        sentences[0] += f" (mean of {len(entry.runs)} seeds)"
    sentences[0] += "."
    if rival is not None:
        moves = [
            f"{group}-shot classes from {percent(rival.mean(group))} to {percent(entry.mean(group))} %"
            for group in reversed(study.groups)
            if rival.mean(group) is not None and entry.mean(group) is not None
        ]
        sentences.append(f"It takes {_listed(moves)}.")
        sentences.append(_tally(study, entry))
    else:
        parts = [f"{percent(entry.mean(g))} % in {g}-shot classes" for g in study.groups if entry.mean(g) is not None]
        sentences.append(f"That is {_listed(parts)}.")
    sentences.append(_trust(entry))
    return tag("p", tag("strong", entry.label), " ", " ".join(sentences), class_="lede")


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _tally(study: Study, entry: Entry) -> str:
    gains = study.gains(entry)
    assert gains is not None
    rounded = gains.round(1)
    up, down, same = int((rounded > 0).sum()), int((rounded < 0).sum()), int((rounded == 0).sum())
    return f"{many(up, 'class', 'classes')} gained, {down} lost" + (f", {same} stayed as they were." if same else ".")


def _trust(entry: Entry) -> str:
    gap = overconfidence(entry)
    if abs(gap) < 1:
        return "On average its confidences are as high as its accuracy."
    return f"On average its confidence is {abs(gap):.1f} points too {'high' if gap > 0 else 'low'}."


def overconfidence(entry: Entry) -> float:
    """Return mean confidence minus accuracy, in points."""
    answers = entry.pooled
    return 100 * float(answers.confidences.mean() - answers.right.mean())


def _gain(study: Study, entry: Entry, score: str) -> float | None:
    """Return the gain over the baseline on the seeds that both have."""
    summary = study.table.rows[entry.number].scores[score]
    return None if summary is None or entry is study.baseline else summary.gain


def _cards(study: Study, entry: Entry) -> Markup:
    cards = []
    for name in ("top1", *study.groups):
        size = "all classes" if name == "top1" else many(len(study.groups[name]), "class", "classes")
        title = TITLES[name] if name == "top1" else f"{name}-shot"
        number = tag("dd", percent(entry.mean(name)), change(_gain(study, entry, name)), class_=name)
        cards.append(tag("div", tag("dt", title, " ", tag("small", size)), number))
    rival = study.rival(entry)
    error, before = entry.mean("ece"), None if rival is None else rival.mean("ece")
    moved = None if error is None or before is None else error - before
    cards.append(
        tag(
            "div",
            tag("dt", "calibration error ", tag("small", "less is better")),
            tag("dd", percent(error), change(moved, better=-1)),
        )
    )
    note = "Percent."
    if rival is not None:
        note = "Percent; beside it the points gained or lost against plain cross-entropy." + _margin(entry, rival)
    return join(tag("dl", cards, class_="cards"), tag("p", note, class_="note"))


def _margin(entry: Entry, rival: Entry) -> str:
    """Say how far the choice of test images may move the gain in top-1; both answered the same images."""
    first, other = entry.answers[0].right, rival.answers[0].right
    if len(first) != len(other):
        return ""
    differing = int((first != other).sum())
    margin = 100 * 1.96 * math.sqrt(differing) / len(first)
    return (
        f" Other test images could move the gain in top-1 by ± {margin:.1f} points (95 % interval of {len(first):,} "
        "images answered by both); another training seed moves it too."
    )


def comparison(study: Study) -> Markup | None:
    """Return the table of all entries; None for a single one."""
    if len(study.entries) == 1:
        return None
    seeds = any(len(entry.runs) > 1 for entry in study.entries)
    columns = ["method", *(["seeds"] if seeds else []), *(TITLES[s] for s in SCORES)]
    columns += ["worst class", "calibration error", "training time"]
    rows = [_row(study, entry, seeds) for entry in study.entries]
    text = "Percent, test accuracy after the last epoch"
    text += "; mean ± standard deviation over seeds" if seeds else ""
    text += f"; small: points against {study.baseline.label}" if study.baseline else ""
    return tag(
        "section",
        tag("h2", "Comparison"),
        tag("p", "Press a heading to order the table, a method to look at it below.", class_="note js-only"),
        table(columns, rows, caption=text, id="comparison-table", sortable=True, class_="comparison"),
        id="comparison",
    )


def _row(study: Study, entry: Entry, seeds: bool) -> Markup:
    cells = [tag("td", len(entry.runs), data_v=len(entry.runs))] if seeds else []
    for score in SCORES:
        mean, spread = entry.mean(score), entry.spread(score)
        text = percent(mean) + (f" ± {spread:.1f}" if spread is not None and mean is not None else "")
        cells.append(tag("td", text, " ", change(_gain(study, entry, score)), data_v=mean))
    worst = float(np.nanmin(entry.per_class))
    cells.append(tag("td", percent(worst), data_v=worst))
    cells.append(tag("td", percent(entry.mean("ece")), data_v=entry.mean("ece")))
    seconds = entry.mean("train_seconds")
    cells.append(tag("td", "n/a" if seconds is None else duration(seconds), data_v=seconds))
    button = tag("button", entry.label, type="button", data_pick=entry.number, class_="pick")
    return row(button, *cells, entry=entry.number)


def shot_group_section(study: Study) -> Markup:
    """Draw all entries side by side in each shot group, on one scale."""
    top = max((entry.mean(group) or 0.0 for entry in study.entries for group in study.groups), default=0.0)
    scale = max(math.ceil(top / 10) * 10, 10)
    panels = [_panel(study, group, scale) for group in study.groups]
    note = f"Mean accuracy of the classes of a group, in percent; bars end at {scale} %."
    if study.baseline is not None and len(study.entries) > 1:
        note += f" The thin line is {study.baseline.label}."
    return tag(
        "section",
        tag("h2", "Shot groups"),
        tag("div", panels, class_="panels"),
        tag("p", note, class_="note"),
        id="groups",
    )


def _panel(study: Study, group: str, scale: float) -> Markup:
    base = None if study.baseline is None else study.baseline.mean(group)
    rows = []
    for entry in study.entries:
        value, spread = entry.mean(group), entry.spread(group)
        marks = []
        if value is not None:
            marks.append(tag("rect", class_=f"bar {group}", x="0", y="2", width=at(100 * value / scale), height="14"))
        if value is not None and spread is not None:
            ends = [at(100 * min(max(v, 0), scale) / scale) for v in (value - spread, value + spread)]
            marks.append(tag("line", class_="whisker", x1=ends[0], x2=ends[1], y1="9", y2="9"))
        if base is not None and len(study.entries) > 1:
            place = at(100 * base / scale)
            marks.append(tag("line", class_="reference", x1=place, x2=place, y1="0", y2="18"))
        drawing = tag("svg", marks, width="100%", height="18", aria_hidden="true")
        text = percent(value) + (f" ± {spread:.1f}" if spread is not None else "")
        gain = _gain(study, entry, group)
        said = tag("td", text, tag("span", f" ({points(gain)})", class_="hidden") if gain is not None else None)
        rows.append(row(entry.label, tag("td", drawing, class_="drawn"), said, entry=entry.number))
    title = f"{group}-shot: {many(len(study.groups[group]), 'class', 'classes')}, {GROUP_RULES[group]}"
    return tag("table", tag("caption", title), tag("tbody", rows), class_="bars")
