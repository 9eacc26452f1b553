"""Two pictures of what a method does to a long tail: by shot group, and class by class against plain cross-entropy.

Both take the contents of `metrics.json`, as in `Run.metrics`; several runs of one method (seeds) are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from numpy.typing import NDArray

from longtail.evaluation.shots import GROUPS

Metrics = Mapping[str, Any]

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = {"many": "#0072B2", "medium": "#E69F00", "few": "#009E73"}
_GAIN, _LOSS = "#009E73", "#D55E00"


def shot_group_bars(rows: Sequence[Metrics], axes: Axes | None = None) -> Figure:
    """Draw the accuracy of many-, medium- and few-shot classes of each method, with the spread over seeds.

    Args:
        rows: Metrics of finished runs on one data set, in the order in which methods are shown.
        axes: Where to draw; None makes a figure.

    Returns:
        The figure.

    Raises:
        ValueError: There are no rows.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    if not methods:
        raise ValueError("shot_group_bars: there are no runs to draw")
    # A group without classes (null) is empty in every run of a data set.
    groups = [group for group in GROUPS if rows[0][group] is not None]
    axes = axes or new_axes(max(1.6 + 1.1 * len(methods), 4.2))  # at least the legend
    width = 0.8 / len(groups)
    for k, group in enumerate(groups):
        values = [[row[group] for row in rows if row["method"] == method] for method in methods]
        axes.bar(
            np.arange(len(methods)) + (k - (len(groups) - 1) / 2) * width,
            [np.mean(v) for v in values],
            width,
            yerr=[np.std(v, ddof=1) if len(v) > 1 else np.nan for v in values],  # NaN: nothing is drawn
            capsize=2,
            label=group,
            color=COLOURS[group],
        )
    axes.set_xticks(np.arange(len(methods)), [method.replace(" (", "\n(") for method in methods])
    axes.set_ylabel("accuracy (%)")
    axes.legend(title="classes", ncols=len(groups), frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure_of(axes)


def per_class_gain(run: Sequence[Metrics], baseline: Sequence[Metrics], axes: Axes | None = None) -> Figure:
    """Draw what each class gained over a baseline, against its number of training images.

    Args:
        run: Metrics of one method's runs.
        baseline: Metrics of the baseline's runs on the same training set.
        axes: Where to draw; None makes a figure.

    Returns:
        The figure.

    Raises:
        ValueError: A side has no runs, or the runs have different class counts.
    """
    if not run or not baseline:
        raise ValueError("per_class_gain: needs at least one run of the method and one of the baseline")
    counts = list(run[0]["class_counts"])
    if any(list(other["class_counts"]) != counts for other in (*run, *baseline)):
        raise ValueError("per_class_gain: the runs have different class counts, so they are not of one training set")
    gains = _class_means(run) - _class_means(baseline)
    axes = axes or new_axes(6.0)
    axes.axhline(0, color="black", linewidth=0.8)
    colours = [_GAIN if gain >= 0 else _LOSS for gain in gains]
    axes.vlines(counts, 0, gains, colors=colours, linewidth=1.5, alpha=0.5)
    axes.scatter(counts, gains, c=colours, s=22, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("training images of the class (head on the left, tail on the right)")
    axes.set_ylabel(f"{run[0]['method']} minus {baseline[0]['method']} (points)")
    return figure_of(axes)


def _class_means(rows: Sequence[Metrics]) -> NDArray[np.float64]:
    """Return the mean accuracy of each class over runs, (C,); NaN for a class without test images."""
    table = [[np.nan if value is None else value for value in row["per_class"]] for row in rows]
    return np.asarray(np.mean(table, axis=0), dtype=np.float64)


def new_axes(width: float) -> Axes:
    """Return axes of a new figure, ``width`` inches wide."""
    # Without pyplot: no window system, no global list of figures to clear.
    return Figure(figsize=(width, 3.6), layout="constrained").add_subplot()


def figure_of(axes: Axes) -> Figure:
    """Return the figure of finished axes, without the frame's upper and right line."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure
