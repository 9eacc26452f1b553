"""The picture of a long tail: images per class, largest first, in the colours of the shot groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from longtail.evaluation.shots import shot_groups
from longtail.report.plots import COLOURS, figure_of, new_axes

_NAMED = 30


def class_count_bars(class_counts: Sequence[int], class_names: Sequence[str], axes: Axes | None = None) -> Figure:
    """Draw the training images of each class, largest first, on a logarithmic scale.

    Args:
        class_counts: Training images per class.
        class_names: Their names; written below the bars where there are at most 30.
        axes: Where to draw; None makes a figure.

    Returns:
        The figure.

    Raises:
        ValueError: The lengths differ, or there are no classes.
    """
    if len(class_counts) != len(class_names) or not len(class_counts):
        raise ValueError(f"class_count_bars: {len(class_counts)} counts for {len(class_names)} names; one a class")
    counts = np.asarray(class_counts)
    order = np.argsort(-counts, kind="stable")
    place = np.argsort(order)
    axes = axes or new_axes(7.0)
    for group, members in shot_groups(counts).items():
        if len(members):
            label = f"{group}: {len(members)}"
            axes.bar(place[members], counts[members], width=0.9, color=COLOURS[group], label=label)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylabel("training images")
    if len(counts) <= _NAMED:
        # A dollar sign would begin a formula.
        names = [class_names[k].replace("$", r"\$") for k in order]
        axes.set_xticks(np.arange(len(counts)), names, rotation=45, ha="right")
    else:
        axes.set_xlabel(f"{len(counts)} classes, largest first")
    axes.legend(title="classes", frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure_of(axes)
