"""How training went: test accuracy of all entries over the epochs, and the training loss of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.report.sections.chart import (
    Frame,
    at,
    details,
    folded,
    legend,
    nice_ticks,
    plot,
    polyline,
    row,
    table,
    x_axis,
    y_axis,
)
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.study import Entry, Study
from longtail.report.sections.words import percent

_ROWS = 60  # of a table; longer trainings are told in steps


@dataclass(frozen=True)
class Course:
    """What an entry's history says, seeds averaged; all of one length: the epochs of all stages one after the other.

    Attributes:
        stages: Name of the stage of each epoch.
        loss: Training loss.
        accuracy: Accuracy on the test set; NaN where it was not looked at.
    """

    stages: tuple[str, ...]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def breaks(self) -> list[int]:
        """Epochs after which another stage begins."""
        return [k for k in range(1, len(self.stages)) if self.stages[k] != self.stages[k - 1]]


def course(entry: Entry) -> Course:
    """Read the histories of an entry's runs."""
    histories = [run.history for run in entry.runs]
    length = min(map(len, histories))

    def mean(name: str) -> NDArray[np.float64]:
        values = [[_number(record.get(name)) for record in history[:length]] for history in histories]
        return np.asarray(np.mean(values, axis=0), dtype=np.float64)

    stages = tuple(str(record.get("stage", "")) for record in histories[0][:length])
    return Course(stages, mean("loss"), mean("test_top1"))


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def training_section(study: Study) -> Markup:
    """Return the section."""
    courses = {entry.number: course(entry) for entry in study.entries}
    length = max(len(c.loss) for c in courses.values())
    if length == 0:
        return tag(
            "section", tag("h2", "Training"), tag("p", "The runs have no history.", class_="note"), id="training"
        )
    blocks = [(entry.number, entry.label, _losses(entry, courses[entry.number])) for entry in study.entries]
    return tag(
        "section",
        tag("h2", "Training"),
        _accuracies(study, courses, length),
        details(blocks, study.best.number),
        id="training",
    )


def _x(epoch: int, length: int) -> float:
    """Return the place of an epoch, counted from 1."""
    return 100 * (epoch - 1) / max(length - 1, 1)


def _epoch_ticks(length: int) -> list[tuple[float, str]]:
    wanted = {1, *(int(t) for t in nice_ticks(0, length, 5)[1:] if t == int(t) and t <= length)}
    return [(_x(epoch, length), str(epoch)) for epoch in sorted(wanted) if epoch == 1 or _x(epoch, length) > 5]


def _accuracies(study: Study, courses: dict[int, Course], length: int) -> Markup:
    known = [c.accuracy[np.isfinite(c.accuracy)] for c in courses.values()]
    top = max((float(a.max()) for a in known if len(a)), default=100.0)
    ticks = nice_ticks(0, top, 5)
    frame = Frame(220, 0, ticks[-1])
    lines = []
    for entry in study.entries:
        seen = courses[entry.number].accuracy
        kind = "curve" + (" base" if entry is study.baseline else "") + (" on" if entry is study.best else "")
        x = [_x(k + 1, length) for k in range(len(seen))]
        lines.append(tag("g", polyline(frame, x, list(seen), class_="line"), class_=kind, data_entry=entry.number))
    keys = [("line on", "the chosen method")] if len(study.entries) > 1 else []
    if study.baseline is not None and len(study.entries) > 1:
        keys.append(("line base", study.baseline.label))
    if len(study.entries) - (study.baseline is not None) > 1:
        keys.append(("line", "the others"))
    drawing = plot(
        frame,
        y_axis(frame, ticks, "test accuracy, %"),
        x_axis(frame, _epoch_ticks(length), "epoch"),
        lines,
        label="Accuracy on the test set over the epochs",
        readout="accuracy-table",
    )
    text = "Test accuracy during training is for the record: nothing was chosen by it, and the last epoch counts."
    return join(
        drawing,
        legend(*keys) if keys else None,
        tag("p", text, class_="note"),
        folded("The chart as a table", _accuracy_table(study, courses, length)),
    )


def _accuracy_table(study: Study, courses: dict[int, Course], length: int) -> Markup:
    looked = [k for k in range(length) if any(_seen(c.accuracy, k) for c in courses.values())]
    rows = [
        row(
            f"epoch {k + 1}",
            *(_seen(courses[entry.number].accuracy, k) for entry in study.entries),
            x=_x(k + 1, length),
        )
        for k in _thinned(looked)
    ]
    labels = [entry.label for entry in study.entries]
    return table(["epoch", *labels], rows, caption="Test accuracy by epoch, in percent", id="accuracy-table")


def _seen(accuracy: NDArray[np.float64], epoch: int) -> str:
    known = epoch < len(accuracy) and np.isfinite(accuracy[epoch])
    return percent(float(accuracy[epoch])) if known else ""


def _thinned(epochs: Sequence[int]) -> list[int]:
    """Return at most some sixty epochs, the last among them."""
    step = -(-len(epochs) // _ROWS)
    return [epoch for k, epoch in enumerate(epochs) if (len(epochs) - 1 - k) % max(step, 1) == 0]


def _stage(name: str, x: float, frame: Frame) -> Markup:
    """Mark where a stage begins; near the right edge its name stands on the left."""
    side = {"dx": "-4", "text_anchor": "end"} if x > 60 else {"dx": "4"}
    line = tag("line", class_="stage", x1=at(x), x2=at(x), y1="0", y2=frame.height)
    return join(line, tag("text", name, class_="axis", x=at(x), y="-4", **side))


def _losses(entry: Entry, seen: Course) -> Markup:
    finite = seen.loss[np.isfinite(seen.loss)]
    if len(finite) == 0:
        return tag("p", "No loss was recorded.", class_="note")
    length, name = len(seen.loss), f"loss-{entry.number}"
    ticks = nice_ticks(min(0.0, float(finite.min())), float(finite.max()), 4)
    frame = Frame(150, ticks[0], ticks[-1])
    stages = [_stage(seen.stages[k], _x(k + 1, length), frame) for k in seen.breaks]
    starts = [0, *seen.breaks, length]
    x = [_x(k + 1, length) for k in range(length)]
    spans = list(itertools.pairwise(starts))
    lines = [polyline(frame, x[a:b], list(seen.loss[a:b]), class_="line on") for a, b in spans]
    lines += [tag("circle", class_="dot", cx=at(x[a]), cy=frame.y(seen.loss[a]), r=3) for a, b in spans if b - a == 1]
    drawing = plot(
        frame,
        y_axis(frame, ticks, "training loss"),
        x_axis(frame, _epoch_ticks(length), "epoch"),
        stages,
        lines,
        label=f"Training loss of {entry.label} over the epochs",
        readout=name,
    )
    rows = [
        row(f"epoch {k + 1}", seen.stages[k], f"{seen.loss[k]:.4g}", x=_x(k + 1, length))
        for k in _thinned(range(length))
    ]
    note = tag("p", "Losses of different methods are different quantities and cannot be compared.", class_="note")
    full = table(["epoch", "stage", "training loss"], rows, caption="Training loss by epoch", id=name)
    return join(drawing, note, folded("The chart as a table", full))
