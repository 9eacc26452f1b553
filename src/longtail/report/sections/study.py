"""The runs of a page, put in order: seeds of one method together, all of one training set, the baseline found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.benchmark.table import BASELINE, Table, aggregate
from longtail.config import RunConfig
from longtail.errors import UsageError
from longtail.evaluation.shots import shot_groups
from longtail.report.sections.answers import Answers, read_answers
from longtail.run import Run

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """Runs that differ in their seed only: a row of the comparison.

    Attributes:
        number: Its place on the page, from 0.
        label: The method, with what tells it from other entries of that method.
        runs: The runs, by seed.
        answers: What each of them answered.
    """

    number: int
    label: str
    runs: tuple[Run, ...]
    answers: tuple[Answers, ...]

    def values(self, name: str) -> list[float]:
        """Return a score of all runs; empty where it is not defined."""
        found = [run.metrics.get(name) for run in self.runs]
        return [float(value) for value in found if value is not None]

    def mean(self, name: str) -> float | None:
        """Return the mean of a score over seeds; None where it is not defined."""
        values = self.values(name)
        return float(np.mean(values)) if values else None

    def spread(self, name: str) -> float | None:
        """Return the standard deviation of a score over seeds (ddof 1); None for fewer than two."""
        values = self.values(name)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @cached_property
    def per_class(self) -> Floats:
        """Accuracy of each class, (C,), in percent, seeds averaged; NaN for a class without test images."""
        rows = [[np.nan if v is None else v for v in run.metrics["per_class"]] for run in self.runs]
        return np.asarray(np.mean(rows, axis=0), dtype=np.float64)

    @property
    def pooled(self) -> Answers:
        """The answers of all seeds one after the other."""
        return Answers(
            np.concatenate([answers.targets for answers in self.answers]),
            np.concatenate([answers.predictions for answers in self.answers]),
            np.concatenate([answers.confidences for answers in self.answers]),
        )


@dataclass(frozen=True)
class Study:
    """All that a page is about.

    Attributes:
        entries: The rows of the comparison, in the order in which the runs were given.
        table: Scores and gains over the baseline, seeds averaged.
        baseline: Plain cross-entropy, if it is among the runs.
    """

    entries: tuple[Entry, ...]
    table: Table
    baseline: Entry | None

    @property
    def first(self) -> Run:
        """A run that stands for what all have in common."""
        return self.entries[0].runs[0]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Training images of each class, (C,)."""
        return np.asarray(self.first.task.class_counts, dtype=np.int64)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.first.task.class_names

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The classes from the largest to the smallest, (C,)."""
        return np.argsort(-self.counts, kind="stable")

    @cached_property
    def groups(self) -> dict[str, NDArray[np.int64]]:
        """The classes of each shot group that has any."""
        return {name: members for name, members in shot_groups(self.counts).items() if len(members)}

    @cached_property
    def group_of(self) -> list[str]:
        """The shot group of each class, length C."""
        names = [""] * len(self.counts)
        for name, members in self.groups.items():
            for k in members:
                names[k] = name
        return names

    @cached_property
    def test_counts(self) -> NDArray[np.int64]:
        """Test images of each class, (C,)."""
        return np.bincount(self.entries[0].answers[0].targets, minlength=len(self.counts))

    @cached_property
    def best(self) -> Entry:
        """The entry that the page opens with: the highest top-1 beside the baseline."""
        others = [entry for entry in self.entries if entry is not self.baseline]
        return max(others or self.entries, key=lambda entry: entry.mean("top1") or 0.0)

    def rival(self, entry: Entry) -> Entry | None:
        """Return what an entry is measured against: the baseline, and nothing for the baseline itself."""
        return None if entry is self.baseline else self.baseline

    def gains(self, entry: Entry) -> Floats | None:
        """Return what each class gained over the baseline, (C,), in points; None without one."""
        rival = self.rival(entry)
        return None if rival is None else entry.per_class - rival.per_class


def mean_of(values: Floats) -> float:
    """Return the mean of the values that are known; NaN where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def make_study(runs: Sequence[Run]) -> Study:
    """Put finished runs in order.

    Raises:
        UsageError: There are none, they are of different training sets or protocols, or a seed stands twice.
        LongtailError: A run is not finished, or damaged.
    """
    if not runs:
        raise UsageError("a report needs at least one run")
    together: dict[str, list[Run]] = {}
    for run, label in zip(runs, labels_of([run.config for run in runs]), strict=True):
        together.setdefault(label, []).append(run)
    labelled = list(together.items())
    base = next((label for label, members in labelled if members[0].config.method == BASELINE), BASELINE)
    # Checked before the answers are read, which takes longer.
    table = aggregate(({**r.metrics, "method": label} for label, group in labelled for r in group), baseline=base)
    entries = []
    for number, (label, members) in enumerate(labelled):
        ordered = tuple(sorted(members, key=lambda run: run.config.seed))
        entries.append(Entry(number, label, ordered, tuple(read_answers(run) for run in ordered)))
    return Study(tuple(entries), table, next((e for e in entries if e.label == base), None))


def labels_of(configs: Sequence[RunConfig]) -> list[str]:
    """Return for each run its method and what tells it from others of that method; those of seeds are the same."""
    firsts: dict[str, RunConfig] = {}
    for config in configs:
        firsts.setdefault(_key(config), config)
    labels = dict(zip(firsts, _labels(list(firsts.values())), strict=True))
    return [labels[_key(config)] for config in configs]


def _key(config: RunConfig) -> str:
    """Return what runs of one entry share: all but the seed and what does not touch the result."""
    alike = replace(config, seed=0, eval_every=1, source=None, teacher="yes" if config.teacher else None)
    return json.dumps(asdict(alike), sort_keys=True, default=str)


def _labels(configs: Sequence[RunConfig]) -> list[str]:
    """Return the method of each entry and, where several share it, what tells them apart."""
    flat = [_flat(config) for config in configs]
    labels = []
    for config, own in zip(configs, flat, strict=True):
        rivals = [o for c, o in zip(configs, flat, strict=True) if c.method == config.method]
        differing = [key for key in _keys(rivals) if any(o.get(key) != own.get(key) for o in rivals)]
        told = ", ".join(f"{key} {own.get(key, 'default')}" for key in differing)
        labels.append(f"{config.method} ({told})" if told else config.method)
    return labels


def _keys(settings: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for each in settings for key in each))


def _flat(config: RunConfig) -> dict[str, Any]:
    values = asdict(replace(config, seed=0, eval_every=1, source=None, teacher="yes" if config.teacher else None))
    return {**values.pop("budget"), **values.pop("options"), **values}
