"""The picture of BBN's study (Zhou et al., CVPR 2020, figure 2): error of features x classifier, three manners each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longtail.report.plots import new_axes


def decoupling_grid(
    errors: Mapping[tuple[str, str], float | None],
    manners: Sequence[str] = ("ce", "rw", "rs"),
    axes: Axes | None = None,
) -> Figure:
    """Draw the error rate of each pair of features and classifier: darker is better.

    As in the paper, features go from left to right and classifiers from top to bottom: a column shows what the
    classifier is worth on the same features, a row what the features are worth under the same classifier.

    Args:
        errors: Error rate in percent by (features, classifier); None or missing where there is no run.
        manners: In the order of columns and rows.
        axes: Where to draw; None makes a figure.

    Returns:
        The figure.

    Raises:
        ValueError: There is no error rate at all.
    """
    table = np.array([[errors.get((f, c)) for f in manners] for c in manners], dtype=np.float64)
    if np.isnan(table).all():
        raise ValueError("decoupling_grid: there is no error rate to draw")
    axes = axes or new_axes(4.4)
    low, high = np.nanmin(table), np.nanmax(table)
    axes.imshow(table, cmap="Blues_r", vmin=low, vmax=high + 0.5 * (high - low) + 1e-9)
    for row in range(len(manners)):
        for column in range(len(manners)):
            error = table[row, column]
            best = error == low
            axes.text(
                column,
                row,
                "n/a" if np.isnan(error) else f"{error:.2f}",
                ha="center",
                va="center",
                weight="bold" if best else "normal",
                color="white" if error < low + 0.5 * (high - low) else "black",
            )
    names = [manner.upper() for manner in manners]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("features")
    axes.set_ylabel("classifier")
    axes.set_title("error (%)", fontsize=10)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure
