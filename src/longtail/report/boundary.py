"""The boundary between a frequent and a rare class, drawn in a plane in which it is exactly a straight line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_HEAD, _TAIL = "#D55E00", "#0072B2"
_FLAT = 1e-3
"""Share of its length below which a direction adds nothing to those before it."""


@dataclass(frozen=True)
class TwoClasses:
    """How one model separates two classes.

    Attributes:
        title: Name of the model.
        weight: Weight of the rare class minus that of the frequent class, (d,).
        bias: The same difference of the biases.
        features: By the name of the set (train, test): features of both classes, (N, d), and which are of the rare
            class, (N,), bool.
    """

    title: str
    weight: Floats
    bias: float
    features: Mapping[str, tuple[Floats, NDArray[np.bool_]]]


def boundary_plane(weights: Sequence[Floats], features: Floats) -> Floats:
    """Return two directions at right angles that contain the weights of one or two models, (2, d).

    A boundary ``w . f + b = 0`` meets a plane that contains w in a straight line, and projecting an image onto the
    plane never takes it to the other side: what is drawn is what the classifier does. With one model, or two
    that look the same way, the second direction is that in which the features vary most beside the first.

    Args:
        weights: One or two, (d,).
        features: (N, d).

    Raises:
        ValueError: A weight is zero: the model does not tell the classes apart.
    """
    first = np.asarray(weights[0], np.float64)
    if not np.linalg.norm(first) > 0:
        raise ValueError("boundary_plane: both classes have the same weight, so there is no boundary")
    first = first / np.linalg.norm(first)
    for weight in weights[1:]:
        rest = weight - (weight @ first) * first
        if np.linalg.norm(rest) > _FLAT * np.linalg.norm(weight):
            return np.stack([first, rest / np.linalg.norm(rest)])
    centred = features - features.mean(0)
    centred = centred - np.outer(centred @ first, first)
    return np.stack([first, np.linalg.svd(centred, full_matrices=False)[2][0]])


def decision_boundary(models: Sequence[TwoClasses], names: tuple[str, str]) -> Figure:
    """Draw the images of two classes, the side that each model gives to each class, and the line between.

    Args:
        models: One, or two to compare (before and after H2T); a row each, with a panel for each of their sets.
        names: The frequent and the rare class.

    Raises:
        ValueError: There is no model, or one has no images of a class.
    """
    if not models:
        raise ValueError("decision_boundary: needs one model or two")
    for model in models:
        for name, (_, rare) in model.features.items():
            if rare.all() or not rare.any():
                missing = names[0] if rare.all() else names[1]
                raise ValueError(f"decision_boundary: {model.title} has no {name} images of class {missing!r}")
    everything = np.concatenate([features for model in models for features, _ in model.features.values()])
    plane = boundary_plane([model.weight for model in models], everything)
    points = everything @ plane.T
    margin = 0.05 * np.ptp(points, axis=0)
    low, high = points.min(0) - margin, points.max(0) + margin
    sets = list(models[0].features)
    figure = Figure(figsize=(4.2 * len(sets), 3.4 * len(models) + 0.4), layout="constrained")
    panels = figure.subplots(len(models), len(sets), squeeze=False, sharex=True, sharey=True)
    for row, model in zip(panels, models, strict=True):
        for axes, name in zip(row, sets, strict=True):
            _regions(axes, model, plane, low, high)
            _images(axes, model, name, plane, names)
        row[0].set_ylabel("second direction of the plane")
    for axes in panels[-1]:
        axes.set_xlabel(f"towards {names[1]}, across {models[0].title}'s boundary")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, frameon=False, loc="outside upper center")
    return figure


def _regions(axes: Axes, model: TwoClasses, plane: Floats, low: Floats, high: Floats) -> None:
    x, y = np.meshgrid(*(np.linspace(a, b, 200) for a, b in zip(low, high, strict=True)))
    slope = plane @ model.weight
    score = slope[0] * x + slope[1] * y + model.bias
    axes.pcolormesh(x, y, score > 0, cmap=ListedColormap([_HEAD, _TAIL]), vmin=0, vmax=1, alpha=0.15, rasterized=True)
    if score.min() < 0 < score.max():
        axes.contour(x, y, score, levels=[0], colors="black", linewidths=1, linestyles="--")
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _images(axes: Axes, model: TwoClasses, name: str, plane: Floats, names: tuple[str, str]) -> None:
    features, rare = model.features[name]
    right = (features @ model.weight + model.bias > 0) == rare
    points = features @ plane.T
    labels = f"{names[0]} (frequent)", f"{names[1]} (rare)"
    for members, marker, colour, label in ((~rare, "s", _HEAD, labels[0]), (rare, "^", _TAIL, labels[1])):
        shown = points[members]
        size = 12 if len(shown) > 30 else 40
        axes.scatter(shown[:, 0], shown[:, 1], s=size, c=colour, marker=marker, linewidths=0, alpha=0.7, label=label)
    shares = [100 * right[members].mean() for members in (~rare, rare)]
    axes.set_title(
        f"{model.title}, {name}\n{shares[0]:.0f} % of {names[0]} and {shares[1]:.0f} % of {names[1]} right", fontsize=9
    )
