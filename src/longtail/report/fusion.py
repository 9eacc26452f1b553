"""Pictures and measures of H2T (Li et al., AAAI 2024): accuracy against the fusing ratio, and its two forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from longtail.evaluation.shots import GROUPS, shot_groups
from longtail.report.plots import COLOURS, figure_of, new_axes

Metrics = Mapping[str, Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MODELS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_BATCH, _BATCHES = 128, 200  # pairs, and masks


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
) -> tuple[Floats, Floats]:
    """Return the two forces of H2T's geometry for pairs of a tail and a head sample.

    The first, ``(w_h - w_t) . (f_t - f_h)`` over the overwritten channels, is positive for a tail sample that was
    wrong and that training has made right after fusion: there the tail weight turns to the head's features and the
    head weight from them. The second, ``(w_t - w_h) . (f_t - f_h)`` over the kept channels, is positive for a tail
    sample that was right together with a fused head sample that is right: it holds the first back. Tail labels meet
    head features far oftener than the reverse, so that the first prevails.

    Args:
        tail_weight: Classifier weight of the tail class, (d,), or of each pair's, (N, d).
        head_weight: Classifier weight of the head class, likewise.
        tail_features: Features of tail samples, (N, d).
        head_features: Features of the head samples they are paired with, (N, d).
        mask: The overwritten channels, (d,), bool, or those of each pair, (N, d).

    Returns:
        Both forces, (N,) each.
    """
    difference = np.asarray(tail_features, np.float64) - np.asarray(head_features, np.float64)
    shares = difference * (np.asarray(tail_weight, np.float64) - np.asarray(head_weight, np.float64))
    over = np.asarray(mask, dtype=bool)
    return -(shares * over).sum(-1), (shares * ~over).sum(-1)


@dataclass(frozen=True)
class Forces:
    """Both forces of H2T's geometry over pairs of a tail and a head image, and where each acts.

    Attributes:
        first: (N,).
        second: (N,).
        first_acts: (N,), bool: the tail image is taken for the head class, and with the head's channels it is not.
        second_acts: (N,), bool: the tail image is told from the head class, and so is the head image with its channels.
    """

    first: Floats
    second: Floats
    first_acts: Bools
    second_acts: Bools


def sampled_forces(
    weight: Floats,
    bias: Floats,
    features: Floats,
    targets: NDArray[np.int64],
    class_counts: Sequence[int],
    p: float,
    *,
    seed: int = 0,
) -> Forces:
    """Measure both forces of a trained classifier on pairs with the classes that H2T pairs.

    The tail image is of any of the smallest classes (H2T's own groups, `longtail.evaluation.shot_groups` by
    ``mislas``), the head image of one of the largest in proportion to its training images; 128 pairs share a mask.
    Biases cancel in the forces but decide where they act.

    Args:
        weight: Classifier weights, (C, d).
        bias: Classifier biases, (C,).
        features: Features of images, (N, d).
        targets: Their classes, (N,).
        class_counts: Training images per class, (C,).
        p: Share of the channels that is overwritten.
        seed: Of the draws.

    Returns:
        Forces of 25,600 pairs.

    Raises:
        ValueError: There are no images of the largest or of the smallest classes.
    """
    rng = np.random.default_rng(seed)
    groups = shot_groups(class_counts, "mislas")
    there = np.bincount(targets, minlength=len(weight)) > 0
    tail_classes, head_classes = (groups[name][there[groups[name]]] for name in ("few", "many"))
    if not len(tail_classes) or not len(head_classes):
        raise ValueError("sampled_forces: needs images of the largest and of the smallest classes")
    counts = np.asarray(class_counts, np.float64)[head_classes]
    t = rng.choice(tail_classes, _BATCHES * _BATCH)
    h = rng.choice(head_classes, _BATCHES * _BATCH, p=counts / counts.sum())
    f_t, f_h = (features[_one_of_each(classes, targets, rng)] for classes in (t, h))
    masks = (rng.random((_BATCHES, features.shape[1])).argsort(-1) < int(p * features.shape[1])).repeat(_BATCH, 0)
    first, second = fusion_forces(weight[t], weight[h], f_t, f_h, masks)

    def prefers_tail(f: Floats) -> Bools:
        score: Floats = ((weight[t] - weight[h]) * f).sum(1) + bias[t] - bias[h]
        return score > 0

    tail_right = prefers_tail(f_t)
    fused_tail_right, fused_head_right = (
        prefers_tail(np.where(masks, f_h, f_t)),
        ~prefers_tail(np.where(masks, f_t, f_h)),
    )
    return Forces(first, second, ~tail_right & fused_tail_right, tail_right & fused_head_right)


def _one_of_each(classes: NDArray[np.int64], targets: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw an image of each of the given classes: positions, (N,)."""
    order = np.argsort(targets, kind="stable")
    counts = np.bincount(targets, minlength=int(classes.max()) + 1)
    starts = counts.cumsum() - counts
    drawn: NDArray[np.int64] = order[starts[classes] + rng.integers(counts[classes])]
    return drawn


def force_histograms(models: Mapping[str, Forces]) -> Figure:
    """Draw how large the two forces of H2T's geometry are: over all pairs (lines), and where they act (filled).

    Args:
        models: The forces by the model's name, such as before and after H2T.

    Raises:
        ValueError: There is no model.
    """
    if not models:
        raise ValueError("force_histograms: needs at least one model")
    figure = Figure(figsize=(9.0, 3.4 + 0.15 * len(models)), layout="constrained")
    titles = ("first force: overwritten channels", "second force: kept channels")
    for name, title, axes in zip(("first", "second"), titles, figure.subplots(1, 2), strict=True):
        everything = np.concatenate([getattr(forces, name) for forces in models.values()])
        low, high = np.quantile(everything, [0.001, 0.999])
        bins = np.linspace(low, max(high, low + 1e-9), 61)
        for (model, forces), colour in zip(models.items(), _MODELS * len(models), strict=False):
            values, acts = getattr(forces, name), getattr(forces, f"{name}_acts")
            share = np.full(len(values), 100 / len(values))
            mean = f", mean there {values[acts].mean():.3g}" if acts.any() else ""
            label = f"{model}: acts on {100 * acts.mean():.3g} % of pairs{mean}"
            axes.hist(values, bins, weights=share, histtype="step", color=colour, label=label)
            axes.hist(values[acts], bins, weights=share[acts], color=colour, alpha=0.2)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("force on a pair of a tail and a head image")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8)
        figure_of(axes)
    figure.axes[0].set_ylabel("pairs (%)")
    return figure
