"""Class by class: accuracy against the number of training images, and who gained and who lost most."""

from __future__ import annotations

import math

import numpy as np

from longtail.report.sections.chart import (
    Frame,
    at,
    details,
    folded,
    legend,
    nice_ticks,
    plot,
    row,
    table,
    x_axis,
    y_axis,
)
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.study import Entry, Study, mean_of
from longtail.report.sections.words import change, many, percent

_SHOWN = 8
_HEIGHT = 280
_MARKS = 250  # more do not fit beside each other


def class_section(study: Study) -> Markup:
    """Return the section; it draws each entry over the baseline."""
    blocks = [(entry.number, _title(study, entry), _block(study, entry)) for entry in study.entries]
    return tag("section", tag("h2", "Classes"), details(blocks, study.best.number), id="classes")


def _title(study: Study, entry: Entry) -> str:
    rival = study.rival(entry)
    return entry.label if rival is None else f"{entry.label} against {rival.label}"


def _block(study: Study, entry: Entry) -> Markup:
    name = f"classes-{entry.number}"
    rival = study.rival(entry)
    columns = ["class", "training images", "group"]
    columns += [entry.label] if rival is None else [rival.label, entry.label, "change"]
    size = len(study.counts)
    rows = [_row(study, entry, k, x=100 * (place + 0.5) / size) for place, k in enumerate(study.order)]
    caption = "Accuracy of each class, in percent"
    full = table(columns, rows, caption=caption, id=name, sortable=True, class_="classes")
    search = tag("input", type="search", aria_label="Find a class", placeholder="Find a class", data_filter=name)
    return join(
        _drawing(study, entry, name),
        _key(study, entry),
        _together(study),
        _chance(study),
        _extremes(study, entry),
        folded(f"All {many(size, 'class', 'classes')} as a table", tag("p", search, class_="js-only"), full),
    )


def _row(study: Study, entry: Entry, k: int, x: float | None = None) -> Markup:
    rival = study.rival(entry)
    own = float(entry.per_class[k])
    cells = [tag("td", f"{study.counts[k]:,}", data_v=int(study.counts[k])), tag("td", study.group_of[k])]
    if rival is not None:
        before = float(rival.per_class[k])
        cells.append(tag("td", percent(before), data_v=_finite(before)))
    cells.append(tag("td", percent(own), data_v=_finite(own)))
    if rival is not None:
        cells.append(tag("td", change(own - before), data_v=_finite(own - before)))
    return row(study.class_names[k], *cells, x=x)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _drawing(study: Study, entry: Entry, name: str) -> Markup:
    frame = Frame(_HEIGHT, 0, 100)
    rival = study.rival(entry)
    label = f"Accuracy of each class of {entry.label}, from the most training images to the fewest"
    label += "" if rival is None else f", with that of {rival.label}"
    return plot(
        frame,
        _bands(study, frame),
        y_axis(frame, nice_ticks(0, 100, 5), "accuracy, %", lift=28),
        x_axis(frame, _count_ticks(study), "training images of the class"),
        _means(study, entry, frame),
        _marks(study, entry, frame),
        label=label,
        readout=name,
        top=46,
    )


def neighbours(study: Study) -> list[tuple[str, list[int]]]:
    """Return what a mark stands for, from the most training images to the fewest: a class, or neighbours of one group.

    Thousands of classes on a few hundred pixels are a blot, so that above `_MARKS` classes neighbours share a mark.

    Returns:
        The shot group of each mark, and its classes.
    """
    together = -(-len(study.order) // _MARKS)
    marks: list[tuple[str, list[int]]] = []
    for k in study.order.tolist():
        group = study.group_of[k]
        if not marks or marks[-1][0] != group or len(marks[-1][1]) == together:
            marks.append((group, []))
        marks[-1][1].append(k)
    return marks


def _marks(study: Study, entry: Entry, frame: Frame) -> list[Markup]:
    """Draw each mark: its accuracy, where it came from, and the way between."""
    rival = study.rival(entry)
    drawn, start = [], 0
    for group, classes in neighbours(study):
        x = at(100 * (start + len(classes) / 2) / len(study.counts))
        start += len(classes)
        own = mean_of(entry.per_class[classes])
        before = math.nan if rival is None else mean_of(rival.per_class[classes])
        if math.isfinite(before) and math.isfinite(own):
            if own != before:
                kind = "up" if own > before else "down"
                drawn.append(tag("line", class_=f"stem {kind}", x1=x, x2=x, y1=frame.y(before), y2=frame.y(own)))
            drawn.append(tag("circle", class_="was", cx=x, cy=frame.y(before), r=1.8))
        if math.isfinite(own):
            drawn.append(tag("circle", class_=f"dot {group}", cx=x, cy=frame.y(own), r=3.4))
    return drawn


def _spans(study: Study) -> list[tuple[str, float, float]]:
    """Return each group's name, beginning and end in percent; in order of counts a group is one span."""
    size, start, spans = len(study.counts), 0, []
    for name, members in study.groups.items():
        spans.append((name, 100 * start / size, 100 * (start + len(members)) / size))
        start += len(members)
    return spans


def _bands(study: Study, frame: Frame) -> Markup:
    bands = []
    for name, start, stop in _spans(study):
        box = tag("rect", class_=f"band {name}", x=at(start), y="0", width=at(stop - start), height=frame.height)
        text = None
        if stop - start > 8:
            text = tag("text", name, class_="group", x=at((start + stop) / 2), y="-8", text_anchor="middle")
        bands.append(join(box, text))
    return join(bands)


def _means(study: Study, entry: Entry, frame: Frame) -> Markup:
    lines = []
    for name, start, stop in _spans(study):
        for who, kind in ((study.rival(entry), "mean was"), (entry, "mean now")):
            value = math.nan if who is None else mean_of(who.per_class[study.groups[name]])
            if math.isfinite(value):
                y = frame.y(value)
                lines.append(tag("line", class_=kind, x1=at(start), x2=at(stop), y1=y, y2=y))
    return join(lines)


def _count_ticks(study: Study) -> list[tuple[float, str]]:
    """Return where the class counts reach round numbers, ends included, with room between the labels."""
    counts = study.counts[study.order]
    size = len(counts)
    rounds = [factor * 10**power for power in range(7, -1, -1) for factor in (5, 2, 1)]
    places = [0, size - 1, *(int((counts > value).sum()) for value in rounds)]
    ticks: list[tuple[float, str]] = []
    for place in places:
        x = 100 * (place + 0.5) / size
        if place < size and all(abs(x - other) >= 9 for other, _ in ticks):
            ticks.append((x, f"{counts[place]:,}"))
    return sorted(ticks)


def _key(study: Study, entry: Entry) -> Markup:
    rival = study.rival(entry)
    items = [(f"dot {group}", f"{group}-shot class") for group in study.groups]
    if rival is not None:
        items += [("was", rival.label), ("stem up", "gained"), ("stem down", "lost")]
    return legend(*items, ("mean now", "mean of the group"))


def _together(study: Study) -> Markup | None:
    """Say that a mark stands for several classes, where it does."""
    most = max(len(classes) for _, classes in neighbours(study))
    text = f"A mark is the mean of up to {most} neighbouring classes; pointing reads out single ones."
    return tag("p", text, class_="note") if most > 1 else None


def _chance(study: Study) -> Markup | None:
    """Say how large a difference of one class may be by chance."""
    if study.baseline is None or len(study.entries) == 1:
        return None
    images = int(np.median(study.test_counts[study.test_counts > 0]))
    margin = 100 * 1.96 * math.sqrt(2 * 0.25 / images)
    text = (
        f"A class has {many(images, 'test image')}: in a single class, differences below about {min(margin, 100):.0f} "
        "points may be chance. Groups and the overall accuracy rest on many classes and are steadier."
    )
    return tag("p", text, class_="note")


def _extremes(study: Study, entry: Entry) -> Markup | None:
    """Return who gained and who lost most; without a baseline, the weakest classes."""
    gains, rival = study.gains(entry), study.rival(entry)
    if gains is None or rival is None:
        ranked = [k for k in np.argsort(entry.per_class, kind="stable") if math.isfinite(entry.per_class[k])]
        rows = [_row_short(study, entry, k) for k in ranked[:_SHOWN]]
        columns = ["class", "training images", "accuracy"]
        return tag("div", table(columns, rows, caption="Least recognised"), class_="pair")
    ranked = [k for k in np.argsort(-gains, kind="stable") if math.isfinite(gains[k])]
    up = [k for k in ranked if gains[k] > 0][:_SHOWN]
    down = [k for k in reversed(ranked) if gains[k] < 0][:_SHOWN]
    columns = ["class", "training images", "accuracy", "change"]
    halves = [
        table(columns, [_row_short(study, entry, k) for k in chosen], caption=caption)
        for chosen, caption in ((up, "Gained most"), (down, "Lost most"))
        if chosen
    ]
    return tag("div", halves, class_="pair") if halves else None


def _row_short(study: Study, entry: Entry, k: int) -> Markup:
    rival = study.rival(entry)
    own = float(entry.per_class[k])
    if rival is None:
        return row(study.class_names[k], f"{study.counts[k]:,}", percent(own))
    before = float(rival.per_class[k])
    return row(
        study.class_names[k], f"{study.counts[k]:,}", f"{percent(before)} → {percent(own)}", change(own - before)
    )
