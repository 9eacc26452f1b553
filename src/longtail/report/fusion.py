"""Pictures and measures of H2T (Li et al., AAAI 2024): accuracy against the fusing ratio, and its two forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from longtail.evaluation.shots import GROUPS
from longtail.report.plots import COLOURS, figure_of, new_axes

Metrics = Mapping[str, Any]


def ratio_sweep(runs: Mapping[float, Sequence[Metrics]], axes: Axes | None = None) -> Figure:
    """Draw the accuracy of each shot group, and of all classes, against H2T's fusing ratio p.

    Args:
        runs: For each ratio the metrics of finished runs, as in `Run.metrics`; seeds are averaged.
        axes: Where to draw; None makes a figure.

    Returns:
        The figure.

    Raises:
        ValueError: There are no runs.
    """
    if not runs or not all(runs.values()):
        raise ValueError("ratio_sweep: needs at least one run for each ratio")
    ratios = sorted(runs)
    axes = axes or new_axes(5.0)
    for key, colour in {**COLOURS, "top1": "black"}.items():
        if key in GROUPS and runs[ratios[0]][0][key] is None:
            continue  # an empty group is empty in every run of a data set
        means = [float(np.mean([run[key] for run in runs[p]])) for p in ratios]
        style = "--" if key == "top1" else "-"
        axes.plot(ratios, means, style, marker="o", markersize=4, color=colour, label="all" if key == "top1" else key)
    axes.set_xlabel("share p of the channels that is overwritten")
    axes.set_ylabel("accuracy (%)")
    axes.legend(ncols=4, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure_of(axes)


def fusion_forces(
    tail_weight: ArrayLike, head_weight: ArrayLike, tail_features: ArrayLike, head_features: ArrayLike, mask: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two forces of H2T's geometry for pairs of a tail and a head sample.

    The first, ``(w_h - w_t) . (f_t - f_h)`` over the overwritten channels, is positive for a tail sample that was
    wrong and that training has made right after fusion: there the tail weight turns to the head's features and the
    head weight from them. The second, ``(w_t - w_h) . (f_t - f_h)`` over the kept channels, is positive for a tail
    sample that was right together with a fused head sample that is right: it holds the first back. Tail labels meet
    head features far oftener than the reverse, so that the first prevails.

    Args:
        tail_weight: Classifier weight of the tail class, (d,).
        head_weight: Classifier weight of the head class, (d,).
        tail_features: Features of tail samples, (N, d).
        head_features: Features of the head samples they are paired with, (N, d).
        mask: The overwritten channels, (d,), bool.

    Returns:
        Both forces, (N,) each.
    """
    difference = np.asarray(tail_features, np.float64) - np.asarray(head_features, np.float64)
    weights = np.asarray(tail_weight, np.float64) - np.asarray(head_weight, np.float64)
    over = np.asarray(mask, dtype=bool)
    return -difference[:, over] @ weights[over], difference[:, ~over] @ weights[~over]
