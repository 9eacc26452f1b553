"""The report's plots as files for papers: PNG and SVG, drawn by matplotlib."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from longtail.errors import LongtailError
from longtail.evaluation import calibration
from longtail.report.expert_classes import class_accuracy_of_experts
from longtail.report.plots import COLOURS, Metrics, figure_of, new_axes, per_class_gain, shot_group_bars
from longtail.report.sections.mistakes import group_shares
from longtail.report.sections.study import Entry, Study, make_study, mean_of
from longtail.report.sections.training import course
from longtail.run import Run

FORMATS = ("png", "svg")


def write_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the report's plots, each as PNG and SVG; those of one method carry its name.

    Args:
        runs: Finished runs of one training set.
        folder: Where to; made if it is not there.

    Returns:
        The files.

    Raises:
        UsageError: The runs do not belong together.
        LongtailError: A run is damaged, or the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures(make_study(runs)).items():
            for suffix in FORMATS:
                path = folder / f"{name}.{suffix}"
                # Without date and random names, so that the same runs give the same files.
                with rc_context({"svg.hashsalt": name}):
                    figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == "svg" else {"Software": None})
                written.append(path)
    except OSError as error:
        raise LongtailError(f"the figures cannot be written to {folder}: {error.strerror or error}") from error
    return written


def figures(study: Study) -> dict[str, Figure]:
    """Return the plots by file name."""
    made = {
        "shot-groups": shot_group_bars([m for e in study.entries for m in _metrics(e)]),
        "training": training_curves(study),
    }
    for entry in study.entries:
        name, rival = _file_name(entry), study.rival(entry)
        made[f"classes-{name}"] = class_accuracy(study, entry)
        if rival is not None:
            made[f"gain-{name}"] = per_class_gain(_metrics(entry), _metrics(rival))
        made[f"reliability-{name}"] = reliability_diagram(entry)
        made[f"confusion-{name}"] = group_confusion(study, entry)
        agreement = entry.answers[0].agreement
        if agreement is not None:
            made[f"experts-{name}"] = class_accuracy_of_experts(agreement, study.counts.tolist())
    return made


def _metrics(entry: Entry) -> list[Metrics]:
    """Return the metrics of an entry's runs under its own name."""
    return [{**run.metrics, "method": entry.label} for run in entry.runs]


def _file_name(entry: Entry) -> str:
    """Return a name that is a file name everywhere; its number keeps different labels apart."""
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", entry.label).strip("-.")[:60]
    return plain if plain == entry.label else f"{plain}-{entry.number}"


def class_accuracy(study: Study, entry: Entry, axes: Axes | None = None) -> Figure:
    """Draw the accuracy of each class against its number of training images, with the means of the groups.

    Args:
        study: The runs.
        entry: Which of them.
        axes: Where to draw; None makes a figure.
    """
    axes = axes or new_axes(6.0)
    for name, members in study.groups.items():
        counts = study.counts[members]
        axes.scatter(counts, entry.per_class[members], s=16, color=COLOURS[name], label=name)
        mean = mean_of(entry.per_class[members])
        axes.hlines(mean, counts.min(), counts.max(), color=COLOURS[name], linewidth=1.2)
    if study.counts.min() > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_ylim(-2, 102)
    axes.set_xlabel("training images of the class (head on the left, tail on the right)")
    axes.set_ylabel(f"accuracy of {entry.label} (%)")
    axes.legend(title="classes", ncols=3, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure_of(axes)


def reliability_diagram(entry: Entry, axes: Axes | None = None, bins: int = 15) -> Figure:
    """Draw the share of right answers against their confidence, seeds together.

    Args:
        entry: The runs of a method.
        axes: Where to draw; None makes a figure.
        bins: Number of equal confidence bins.
    """
    answers = entry.pooled
    found = calibration(answers.confidences, answers.right, bins)
    axes = axes or new_axes(3.8)
    there = found.counts > 0
    places = (np.arange(bins) + 0.5)[there] / bins
    axes.bar(places, found.accuracies[there], 0.92 / bins, color="#0072B2", alpha=0.7)
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right answers")
    axes.set_title(f"{entry.label}, ECE {100 * found.expected_error:.1f} %", fontsize=10)
    return figure_of(axes)


def training_curves(study: Study, axes: Axes | None = None) -> Figure:
    """Draw the test accuracy of each method over the epochs, seeds averaged.

    Args:
        study: The runs.
        axes: Where to draw; None makes a figure.
    """
    axes = axes or new_axes(6.0)
    for entry in study.entries:
        accuracy = course(entry).accuracy
        seen = np.flatnonzero(np.isfinite(accuracy))
        colour, dashes = ("black", "--") if entry is study.baseline else (None, "-")
        axes.plot(seen + 1, accuracy[seen], linewidth=1.3, label=entry.label, color=colour, linestyle=dashes)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(ncols=3, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure_of(axes)


def group_confusion(study: Study, entry: Entry, axes: Axes | None = None) -> Figure:
    """Draw what becomes of the test images of each shot group: right, or which group was named wrongly.

    Args:
        study: The runs.
        entry: Which of them.
        axes: Where to draw; None makes a figure.
    """
    shares = group_shares(study, entry.pooled)
    columns = list(next(iter(shares.values())))
    values = np.array([[parts[column] for column in columns] for parts in shares.values()])
    axes = axes or new_axes(5.2)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", color="white" if value > 55 else "black")
    axes.set_xticks(range(len(columns)), ["right", *(f"wrong,\n{name}" for name in columns[1:])])
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set_ylabel("true class")
    axes.set_xlabel(f"answer of {entry.label} (% of the group's images)")
    return figure_of(axes)
