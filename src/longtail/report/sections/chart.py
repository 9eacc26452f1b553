"""Charts as inline SVG that fit any width: x in percent of the frame, y in pixels, so that text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longtail.report.sections.markup import Child, Markup, join, tag


@dataclass(frozen=True)
class Frame:
    """The area that a chart draws into.

    Attributes:
        height: In pixels.
        low: Value at the lower edge.
        high: Value at the upper edge.
    """

    height: float
    low: float
    high: float

    def y(self, value: float) -> float:
        """Return the pixel of a value, from the upper edge."""
        return self.height * (1 - (value - self.low) / (self.high - self.low))


def at(percent: float) -> str:
    """Return a horizontal place as SVG takes it."""
    return f"{percent:.2f}".rstrip("0").rstrip(".") + "%"


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers from the first at or below ``low`` to the first at or above ``high``."""
    span = max(high - low, 1e-9)
    unit = 10 ** math.floor(math.log10(span / about))
    step = min((unit * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda s: abs(span / s - about))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * k, 10) for k in range(first, max(last, first + 1) + 1)]


def y_axis(frame: Frame, ticks: Sequence[float], label: str, lift: int = 14) -> Markup:
    """Draw horizontal lines with their values and, ``lift`` pixels above them, what they are."""
    lines = [
        join(
            tag("line", class_="grid", x1="0", x2="100%", y1=frame.y(value), y2=frame.y(value)),
            tag("text", f"{value:g}", class_="tick", x="0", y=frame.y(value), dx="-8", dy=".32em", text_anchor="end"),
        )
        for value in ticks
    ]
    return join(lines, tag("text", label, class_="axis", x="0", y="0", dx="-32", dy=-lift))


def x_axis(frame: Frame, ticks: Iterable[tuple[float, str]], label: str) -> Markup:
    """Draw values below the frame, and under them what they are.

    Args:
        frame: The frame.
        ticks: Places in percent and what stands there.
        label: What the values are.
    """
    height = frame.height
    marks = [
        join(
            tag("line", class_="stub", x1=at(place), x2=at(place), y1=height, y2=height + 4),
            tag("text", text, class_="tick", x=at(place), y=height, dy="18", text_anchor="middle"),
        )
        for place, text in ticks
    ]
    return join(marks, tag("text", label, class_="axis", x="50%", y=height, dy="38", text_anchor="middle"))


def polyline(frame: Frame, x: Sequence[float] | NDArray[np.float64], y: Sequence[float], **attributes: str) -> Markup:
    """Draw a line through values ``y`` at places ``x`` in percent; those that are not finite are left out."""
    points = " ".join(
        f"{a:.2f},{frame.y(b):.2f}" for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)
    )
    line = tag("polyline", points=points, vector_effect="non-scaling-stroke", **attributes)
    # Points know no percent: an inner image of 100 units is stretched instead, and strokes are told not to be.
    box = {"viewBox": f"0 0 100 {frame.height:g}", "preserveAspectRatio": "none"}
    return tag("svg", line, width="100%", height=frame.height, class_="stretch", **box)


def plot(
    frame: Frame, *marks: Child, label: str, readout: str | None = None, top: int = 30, bottom: int = 46
) -> Markup:
    """Return a drawing with its margins and, where a table can be read along it, the line that reads it out.

    Args:
        frame: The area.
        marks: What is in it, axes included.
        label: What the drawing shows, for those who do not see it.
        readout: Id of the table whose rows (``data-x``: place in percent) are read out under the pointer.
        top: Margin above, in pixels.
        bottom: Margin below.
    """
    image = tag("svg", join(*marks), width="100%", height=frame.height, role="img", aria_label=label)
    style = f"padding-top:{top}px;padding-bottom:{bottom}px"
    if readout is None:
        return tag("div", image, class_="plot", style=style)
    focus = {"tabindex": "0", "role": "group", "aria_label": label}
    hint = "Point at the chart or touch it; arrow keys move along."
    return join(
        tag("p", hint, class_="readout", aria_live="polite", data_hint=hint),
        tag("div", image, class_="plot", style=style, data_readout=readout, **focus),
    )


def legend(*items: tuple[str, str]) -> Markup:
    """Return the key of a chart: class of the mark, and what it stands for."""
    return tag("p", [tag("span", tag("i", class_=f"key {kind}"), text) for kind, text in items], class_="legend")


def table(
    columns: Sequence[str],
    rows: Iterable[Markup],
    *,
    caption: str,
    id: str | None = None,
    sortable: bool = False,
    class_: str = "",
) -> Markup:
    """Return a table with a caption; a sortable one gets its buttons from the page's script.

    Args:
        columns: Headings; the first column holds names, the others numbers.
        rows: The rows of the body.
        caption: What it shows.
        id: Its name on the page.
        sortable: Whether a reader can order it.
        class_: Further classes.
    """
    head = tag("tr", [tag("th", name, scope="col") for name in columns])
    inner = (tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", rows))
    own = tag("table", *inner, id=id, class_=class_ or None, data_sortable=sortable)
    return tag("div", own, class_="scroll", tabindex="0", role="region", aria_label=caption)


def row(name: Child, *cells: Child, x: float | None = None, entry: int | None = None) -> Markup:
    """Return a row of a table: its name, and numbers; ``x`` is its place along a chart."""
    place = None if x is None else f"{x:.3f}"
    values = [cell if isinstance(cell, Markup) and cell.startswith("<td") else tag("td", cell) for cell in cells]
    return tag("tr", tag("th", name, scope="row"), values, data_x=place, data_entry=entry)


def folded(summary: str, *content: Child) -> Markup:
    """Return content that is there when asked for."""
    return tag("details", tag("summary", summary), *content)


def details(blocks: Iterable[tuple[int, str, Child]], opened: int) -> Markup:
    """Return one block for each entry, of which the page shows the chosen one, and all of them without a script.

    Args:
        blocks: Number of the entry, its title, and the content.
        opened: The entry that is shown first.
    """
    made = list(blocks)
    return join(
        tag(
            "div",
            tag("h3", title, class_="who") if len(made) > 1 else None,
            content,
            class_="detail on" if number == opened else "detail",
            data_entry=number,
        )
        for number, title, content in made
    )
