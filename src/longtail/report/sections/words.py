"""Numbers as the page says them."""

from __future__ import annotations

import math

from longtail.report.sections.markup import Markup, join, tag


def percent(value: float | None) -> str:
    """Return a percentage with one decimal; n/a where there is none."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.1f}"


def points(difference: float) -> str:
    """Return a difference in percentage points with its sign, a real minus, and none before zero."""
    rounded = round(difference, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def change(difference: float | None, *, better: int = 1) -> Markup:
    """Return a difference as a small coloured mark: green where it is for the better.

    Args:
        difference: In percentage points; None gives nothing.
        better: 1 where more is better, -1 where less is.
    """
    if difference is None or math.isnan(difference):
        return join()
    rounded = round(difference, 1) * better
    kind = "up" if rounded > 0 else "down" if rounded < 0 else "same"
    return tag("span", points(difference), class_=f"change {kind}")


def many(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 class``, ``2 classes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return a time in its natural unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
