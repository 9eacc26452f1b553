"""The picture of DiVE (He et al., ICCV 2021): how many virtual examples each class gets from a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from longtail.evaluation import shot_groups
from longtail.report.plots import figure_of, new_axes

# Okabe and Ito's colours after black.
_COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def virtual_example_distribution(
    teachers: Mapping[str, ArrayLike], class_counts: Sequence[int], axes: Axes | None = None
) -> Figure:
    """Draw the virtual examples of each class by teacher, beside the images that are there.

    The legend gives the mean number in many-, medium- and few-shot classes, which is what the paper looks at to choose
    how much to flatten.

    Args:
        teachers: Virtual examples of each class, (C,), from `longtail.losses.virtual_examples`, by the teacher's name.
        class_counts: Training images per class, the input's own distribution, (C,).
        axes: Where to draw; None makes a figure.

    Returns:
        The figure: classes from head to tail, examples on a logarithmic axis.

    Raises:
        ValueError: A teacher has another number of classes, or its examples do not add up to the images.
    """
    counts = np.asarray(class_counts, dtype=np.float64)
    order = np.argsort(-counts, kind="stable")
    groups = [members for members in shot_groups(class_counts).values() if len(members)]
    axes = axes or new_axes(6.0)
    for number, (name, values) in enumerate({"input": counts, **teachers}.items()):
        examples = np.asarray(values, dtype=np.float64)
        if examples.shape != counts.shape or not np.isclose(examples.sum(), counts.sum(), rtol=1e-3):
            raise ValueError(
                f"virtual_example_distribution: {name} has {examples.sum():g} virtual examples of {len(examples)} "
                f"classes; they must be those of the {counts.sum():g} training images of {len(counts)} classes"
            )
        means = " / ".join(f"{examples[members].mean():.0f}" for members in groups)
        axes.plot(
            np.arange(len(counts)),
            examples[order],
            "--" if number == 0 else "-",
            color=_COLOURS[number % len(_COLOURS)],
            label=f"{name}: {means}",
        )
    axes.set_yscale("log")
    axes.set_xlabel("classes, most images first")
    axes.set_ylabel("(virtual) examples")
    axes.legend(title="mean by shot group", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure_of(axes)
