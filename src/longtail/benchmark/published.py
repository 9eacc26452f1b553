"""Numbers that papers and their code printed for CIFAR-10-LT and CIFAR-100-LT with ResNet-32, as data."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal


@dataclass(frozen=True)
class Published:
    """One printed number. Most papers report the best epoch on the test set; protocols differ between sources.

    Attributes:
        method: Name of the method here, such as ``ldam+drw``.
        dataset: ``cifar10`` or ``cifar100``.
        imbalance: Imbalance factor of the exponential profile.
        metric: How the source prints it; ``value`` is an accuracy all the same.
        value: Top-1 accuracy in percent.
        source: Paper or README that prints it.
        note: What sets the run apart; may be empty.
    """

    method: str
    dataset: str
    imbalance: float
    metric: Literal["accuracy", "error"]
    value: float
    source: str
    note: str


@cache
def load() -> tuple[Published, ...]:
    """Return all published numbers."""
    text = files("longtail.benchmark").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            method=row["method"],
            dataset=row["dataset"],
            imbalance=float(row["imbalance"]),
            metric="error" if row["metric"] == "error" else "accuracy",
            value=float(row["value"]),
            source=row["source"],
            note=row["note"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def find(method: str, dataset: str | None = None, imbalance: float | None = None) -> list[Published]:
    """Return what was published for a method, in the order of the file.

    Args:
        method: ``METHOD`` or ``METHOD+MODIFIER+...``, spelled as `longtail.methods.canonical` does.
        dataset: Keep one data set only.
        imbalance: Keep one imbalance factor only.
    """
    return [
        row
        for row in load()
        if row.method == method and dataset in (None, row.dataset) and imbalance in (None, row.imbalance)
    ]


def span(rows: Iterable[Published]) -> str:
    """Return the range of some published numbers, such as ``38.3-39.6``; empty without any."""
    values = sorted(row.value for row in rows)
    if not values:
        return ""
    low, high = f"{values[0]:.1f}", f"{values[-1]:.1f}"
    return low if low == high else f"{low}-{high}"
