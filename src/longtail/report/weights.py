"""What the images of each class weighed while a meta re-weighting method trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from longtail.errors import UsageError
from longtail.methods.meta import DECADES, PER_DECADE
from longtail.run import Run
from longtail.training.state import load_state

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LearnedWeights:
    """Mean weights of the images of each class, epoch by epoch.

    Attributes:
        method: Name of the method.
        class_counts: Training images per class, length C.
        epochs: 1-based numbers of the epochs in which weights were learned, length E.
        weight: Mean weight, (E, C); NaN where no image of the class was seen.
        term: Mean of the part that was learned, (E, C); the whole weight where all of it is learned.
        median_size: Median size of the learned part of single images over all epochs, within 12 %.
    """

    method: str
    class_counts: tuple[int, ...]
    epochs: Array
    weight: Array
    term: Array
    median_size: float


def learned_weights(run: Run) -> LearnedWeights:
    """Read what a finished run of da-meta, l2rw or meta-weight-net recorded.

    Raises:
        UsageError: The run learned no weights.
        LongtailError: Its state cannot be read.
    """
    kept: dict[str, Tensor] = {
        name.removeprefix("record."): value
        for name, value in load_state(run.path / "state.pt")["objective"].items()
        if name.startswith("record.")
    }
    if not {"count", "weight", "term", "sizes"} <= kept.keys():
        raise UsageError(
            f"{run.path} is a run of {run.config.method}, which learns no weights of images",
            fix="give a run of da-meta, l2rw or meta-weight-net",
        )
    count, weight, term, sizes = (kept[name].numpy() for name in ("count", "weight", "term", "sizes"))
    with np.errstate(invalid="ignore"):
        means = weight / count, term / count
    numbers = [line["epoch"] for line in run.history[-len(count) :]]
    return LearnedWeights(
        run.config.method, run.task.class_counts, np.asarray(numbers, float), *means, _median(sizes.sum(0))
    )


def _median(sizes: Array) -> float:
    """Return the middle of the bin in which the median of the counted sizes lies; 0 in the lowest bin."""
    k = int(np.searchsorted(np.cumsum(sizes), sizes.sum() / 2))
    return 0.0 if k == 0 else float(10.0 ** (DECADES[0] + (k + 0.5) / PER_DECADE))


def weights_over_training(learned: LearnedWeights) -> Figure:
    """Draw the mean weight of each class over the epochs, and beside it that of the learned part.

    One line a class, from dark (most images) to light (fewest). Where all of the weight is learned, one picture.

    Args:
        learned: From `learned_weights`.
    """
    alone = bool(np.array_equal(learned.weight, learned.term, equal_nan=True))
    figure = Figure(figsize=(5.2 if alone else 9.6, 3.6), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 1 if alone else 2, squeeze=False)[0])
    counts = np.maximum(learned.class_counts, 1)
    norm = LogNorm(counts.min(), max(counts.max(), counts.min() + 1))
    colours: Any = ScalarMappable(norm, colormaps["viridis_r"])
    for axes, values in zip(panels, (learned.weight, learned.term), strict=False):
        for c in np.argsort(counts):
            axes.plot(learned.epochs, values[:, c], color=colours.to_rgba(counts[c]), linewidth=1.2, marker=".")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_xlabel("epoch")
    panels[0].set_ylabel("mean weight of an image")
    panels[0].set_title(learned.method, fontsize="medium", loc="left")
    if not alone:
        panels[1].axhline(0, color="black", linewidth=0.8)
        panels[1].set_ylabel("of which learned")
        panels[1].set_title(f"median size {learned.median_size:.1e}", fontsize="medium", loc="left")
    figure.colorbar(colours, ax=panels, label="training images of the class")
    return figure
