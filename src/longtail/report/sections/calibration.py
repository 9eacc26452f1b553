"""Can one trust the confidences: reliability, what the rare classes' answers are worth, and where to draw a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from longtail.evaluation import Calibration
from longtail.evaluation import calibration as calibrate
from longtail.report.sections.answers import Answers
from longtail.report.sections.chart import (
    Frame,
    at,
    details,
    folded,
    legend,
    plot,
    polyline,
    row,
    table,
    x_axis,
    y_axis,
)
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.overview import overconfidence
from longtail.report.sections.study import Entry, Study
from longtail.report.sections.words import many, percent, points

_BINS = 15
_GOALS = (80, 90, 95)
_LEAST_ANSWERS = 30  # below this a share of right answers says little


def calibration_section(study: Study) -> Markup:
    """Return the section, one block an entry."""
    blocks = [(entry.number, entry.label, _block(study, entry)) for entry in study.entries]
    return tag("section", tag("h2", "Confidences"), details(blocks, study.best.number), id="confidences")


def _block(study: Study, entry: Entry) -> Markup:
    answers = entry.pooled
    found = calibrate(answers.confidences, answers.right, _BINS)
    rival = study.rival(entry)
    was = None
    if rival is not None:
        was = calibrate(rival.pooled.confidences, rival.pooled.right, _BINS)
    name = f"reliability-{entry.number}"
    keys = [("bar now", "right answers among those with this confidence"), ("diagonal", "as it should be")]
    if rival is not None:
        keys.append(("was", rival.label))
    return join(
        tag("p", _verdict(entry, answers)),
        tag(
            "div",
            tag("div", _drawing(found, was, entry, name), legend(*keys)),
            tag("div", _by_group(study, answers), _thresholds(answers)),
            class_="pair uneven",
        ),
        folded("The chart as a table", _bins_table(found, name)),
    )


def _verdict(entry: Entry, answers: Answers) -> str:
    gap = overconfidence(entry)
    sure, right = 100 * answers.confidences.mean(), 100 * answers.right.mean()
    text = f"Mean confidence {percent(sure)} %, right {percent(right)} %: "
    if abs(gap) < 1:
        text += "on average the two agree."
    else:
        text += f"{'over' if gap > 0 else 'under'}confident by {abs(gap):.1f} points."
    return f"{text} Expected calibration error {percent(entry.mean('ece'))} ({_BINS} bins)."


def _drawing(found: Calibration, was: Calibration | None, entry: Entry, name: str) -> Markup:
    frame = Frame(240, 0, 100)
    width = 100 / _BINS
    marks = []
    for place in range(_BINS):
        if not found.counts[place]:
            continue
        top = frame.y(100 * found.accuracies[place])
        box = {"x": at(place * width + 0.4), "width": at(width - 0.8)}
        marks.append(tag("rect", class_="bar now", y=top, height=frame.height - top, **box))
    if was is not None:
        marks += [
            tag("circle", class_="was", cx=at((p + 0.5) * width), cy=frame.y(100 * was.accuracies[p]), r=2.6)
            for p in range(_BINS)
            if was.counts[p]
        ]
    return plot(
        frame,
        y_axis(frame, (0, 25, 50, 75, 100), "right answers, %"),
        x_axis(frame, [(v, f"{v}") for v in (0, 25, 50, 75, 100)], "confidence, %"),
        marks,
        polyline(frame, (0, 100), (0, 100), class_="diagonal"),
        label=f"Reliability of {entry.label}: share of right answers against confidence",
        readout=name,
    )


def _bins_table(found: Calibration, name: str) -> Markup:
    width = 100 / _BINS
    rows = [
        row(
            f"confidence {place * width:.0f} to {(place + 1) * width:.0f} %",
            f"{int(found.counts[place]):,}",
            percent(100 * found.confidences[place]) if found.counts[place] else "n/a",
            percent(100 * found.accuracies[place]) if found.counts[place] else "n/a",
            x=(place + 0.5) * width,
        )
        for place in range(_BINS)
    ]
    columns = ["confidence", "answers", "mean confidence, %", "right, %"]
    return table(columns, rows, caption="Answers by confidence", id=name)


def _by_group(study: Study, answers: Answers) -> Markup:
    """Tell what an answer is worth by the group of the class that it names: what a user sees is the answer."""
    rows = []
    for group, members in study.groups.items():
        named = np.isin(answers.predictions, members)
        if not named.any():
            rows.append(row(f"{group}-shot", "0", "n/a", "n/a", "n/a"))
            continue
        sure, right = (100 * float(values[named].mean()) for values in (answers.confidences, answers.right))
        cells = (f"{int(named.sum()):,}", percent(sure), percent(right), points(sure - right))
        rows.append(row(f"{group}-shot", *cells))
    columns = ["it names a class that is", "answers", "confidence", "right", "too high by"]
    return table(columns, rows, caption="What an answer is worth, by the class that it names; percent")


def thresholds(answers: Answers, goals: Sequence[int], least: int) -> list[tuple[int, float | None, float]]:
    """Find the lowest confidences above which answers are right as often as is wanted.

    Args:
        answers: The answers.
        goals: Wanted shares of right answers, in percent.
        least: Answers below which a share is not believed.

    Returns:
        Each goal with its confidence, within 0..1, and the percentage of answers that reach it; None and 0 where no
        confidence does.
    """
    order = np.argsort(-answers.confidences, kind="stable")
    sure, right = answers.confidences[order], answers.right[order]
    number = np.arange(1, len(right) + 1)
    # A line can be drawn only between two different confidences.
    possible = np.append(sure[1:] < sure[:-1], True) & (number >= least)
    found: list[tuple[int, float | None, float]] = []
    for goal in goals:
        kept = np.flatnonzero(possible & (100 * np.cumsum(right) / number >= goal))
        line = (float(sure[kept[-1]]), 100 * float(kept[-1] + 1) / len(right)) if len(kept) else (None, 0.0)
        found.append((goal, *line))
    return found


def _thresholds(answers: Answers) -> Markup:
    if len(answers.targets) < _LEAST_ANSWERS:
        told = (
            f"{many(len(answers.targets), 'answer')} on the test set are too few to say from which confidence up to act"
        )
        return tag("p", f"{told}; it takes {_LEAST_ANSWERS}.")
    rows = []
    for goal, line, share in thresholds(answers, _GOALS, _LEAST_ANSWERS):
        said = "none does" if line is None else "any" if share == 100 else f"{100 * line:.1f} %"
        rows.append(row(f"{goal} %", said, f"{share:.1f} %"))
    size = many(len(answers.targets), "answer")
    caption = f"To be right this often, act on confidences from here up ({size} on the test set)"
    return table(["right", "confidence from", "answers left"], rows, caption=caption)
