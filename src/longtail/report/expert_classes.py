"""The picture of experts: what each of them, and all together, get right in each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from longtail.evaluation.shots import shot_groups
from longtail.report.plots import COLOURS, figure_of, new_axes

# Okabe and Ito's colours that are not those of the shot groups.
_EXPERTS = ("#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#0072B2", "#E69F00", "#009E73")


def class_accuracy_of_experts(
    agreement: Mapping[str, Any], class_counts: Sequence[int], axes: Axes | None = None
) -> Figure:
    """Draw the accuracy of each expert and of their average in each class, from the largest class to the smallest.

    Args:
        agreement: From `longtail.evaluation.expert_agreement`.
        class_counts: Training images per class, (C,); they give the order and the shot groups on the axis.
        axes: Where to draw; None makes a figure.

    Raises:
        ValueError: The class counts are of another number of classes.
    """
    counts = np.asarray(class_counts)
    answers = {"average": agreement["average"]}
    answers.update({f"expert {number}": expert for number, expert in enumerate(agreement["experts"], 1)})
    if len(counts) != len(agreement["average"]["per_class"]):
        raise ValueError(
            f"class_accuracy_of_experts: {len(agreement['average']['per_class'])} classes, but {len(counts)} counts"
        )
    order = np.argsort(-counts, kind="stable")
    axes = axes or new_axes(min(6.0 + 0.05 * len(counts), 11.0))
    _mark_groups(axes, counts, order)
    few = len(counts) <= 20
    for number, (name, answer) in enumerate(answers.items()):
        accuracy = np.array([np.nan if value is None else value for value in answer["per_class"]])[order]
        label = f"{name}: {answer['top1']:.1f}"
        if number == 0:
            axes.plot(
                accuracy, color="black", linewidth=1.6, marker="o" if few else None, markersize=4, label=label, zorder=3
            )
            continue
        colour = _EXPERTS[(number - 1) % len(_EXPERTS)]
        style: dict[str, Any] = {"marker": "o", "markersize": 4 if few else 2.5, "linewidth": 0.8 if few else 0}
        axes.plot(accuracy, color=colour, label=label, **style)
    axes.set_xlabel("classes, most training images first")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(-2, 102)
    columns: dict[str, Any] = {"ncols": min(len(answers), 4), "fontsize": 8, "columnspacing": 1.2, "handlelength": 1.5}
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), **columns)
    return figure_of(axes)


def _mark_groups(axes: Axes, counts: NDArray[Any], order: NDArray[np.int64]) -> None:
    """Shade the many-, medium- and few-shot classes; sorted by count, each group is one span."""
    place = np.argsort(order)
    for name, members in shot_groups(counts).items():
        if len(members):
            start, stop = place[members].min() - 0.5, place[members].max() + 0.5
            axes.axvspan(start, stop, color=COLOURS[name], alpha=0.08, linewidth=0)
            axes.text((start + stop) / 2, -1, name, color=COLOURS[name], ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-0.5, len(counts) - 0.5)
