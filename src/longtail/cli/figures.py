"""The pictures of `longtail figure`: what each takes from its runs, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray

from longtail import methods, report
from longtail.cli.experts import logits_with_experts
from longtail.config import RunConfig
from longtail.errors import UsageError
from longtail.evaluation import expert_agreement
from longtail.losses import virtual_examples
from longtail.report.measure import class_features, classifier_of, data_of
from longtail.report.sections.study import labels_of
from longtail.run import Run


@dataclass(frozen=True)
class Choices:
    """What a person may choose beside the runs.

    Attributes:
        classes: A frequent and a rare class, by name or number; None takes the largest and the smallest of
            those with test images.
        expert: 1-based number of the expert whose features and classifier are looked at.
        p: Share of overwritten channels; None takes the last run's.
        data_root: Folder of the data sets; None takes the usual one.
        temperature: By what teachers are flattened, above 0.
    """

    classes: tuple[str, str] | None = None
    expert: int = 1
    p: float | None = None
    data_root: str | None = None
    temperature: float = 1.0


def ratio(runs: Sequence[Run], choices: Choices) -> Picture:
    """Accuracy of each shot group against H2T's p, over runs that differ in p (and seed)."""
    _same_protocol(runs)
    sweep: dict[float, list[Run]] = {}
    for run in runs:
        sweep.setdefault(_ratio_of(run), []).append(run)
    bases = {run.config.method for run in runs}
    if len(bases) > 1:
        raise UsageError(f"the runs are of several methods: {', '.join(sorted(bases))}", fix="give runs of one method")
    others = [replace(run.config, options={**run.config.options, "h2t.p": None}) for run in runs]
    _one_configuration(others, "p and seed")
    for members in sweep.values():
        _distinct_seeds(members)
    return report.ratio_sweep({p: [run.metrics for run in members] for p, members in sweep.items()})


def boundary(runs: Sequence[Run], choices: Choices) -> Picture:
    """Images of a frequent and a rare class in the plane of one or two classifiers, train beside test."""
    data = data_of(runs[0], choices.data_root)
    tested = np.bincount(data.test.targets.numpy(), minlength=data.num_classes)
    head, tail = _two_classes(runs[0], choices.classes, tested)
    models = []
    for run in runs:
        classifier = classifier_of(run, choices.expert)
        features = {}
        for name, images in (("train", data.train), ("test", data.test)):
            found, targets = class_features(run, images, np.array([head, tail]), choices.expert)
            features[name] = (found, targets == tail)
        difference, bias = (
            classifier.weight[tail] - classifier.weight[head],
            classifier.bias[tail] - classifier.bias[head],
        )
        models.append(report.TwoClasses(_title(run, runs), difference, float(bias), features))
    names = runs[0].task.class_names
    return report.decision_boundary(models, (names[head], names[tail]))


def forces(runs: Sequence[Run], choices: Choices) -> Picture:
    """How large the two forces of H2T's geometry are in trained classifiers."""
    p = _ratio_of(runs[-1]) if choices.p is None else choices.p
    if not 0 <= p <= 1:
        raise UsageError(f"p is {p:g}; it must lie between 0 and 1 (the share of channels that is overwritten)")
    data = data_of(runs[0], choices.data_root)
    models = {}
    for run in runs:
        features, targets = class_features(run, data.test, np.arange(data.num_classes), choices.expert)
        classifier = classifier_of(run, choices.expert)
        models[_title(run, runs)] = report.sampled_forces(
            classifier.weight, classifier.bias, features, targets, data.class_counts, p
        )
    return report.force_histograms(models)


def experts(runs: Sequence[Run], choices: Choices) -> Picture:
    """Accuracy of each expert and of their average in each class."""
    found = logits_with_experts(runs[0])
    each = found["expert_logits"]
    if np.isnan(each).any():
        raise UsageError(
            f"{runs[0].path} has routers, so that no expert saw all images", fix="give the run without +ea"
        )
    agreement = expert_agreement(each, found["targets"], found["logits"])
    return report.class_accuracy_of_experts(agreement, runs[0].task.class_counts)


def groups(runs: Sequence[Run], choices: Choices) -> Picture:
    """Accuracy of many-, medium- and few-shot classes by method, with the spread over seeds."""
    _same_protocol(runs)
    labels = labels_of([run.config for run in runs])
    for label in set(labels):
        _distinct_seeds([run for run, own in zip(runs, labels, strict=True) if own == label])
    return report.shot_group_bars([{**run.metrics, "method": own} for run, own in zip(runs, labels, strict=True)])


def gain(runs: Sequence[Run], choices: Choices) -> Picture:
    """What each class gains by the first run's method over the second run's, seeds averaged."""
    _same_protocol(runs)
    first = runs[0].config.method
    own = [run for run in runs if run.config.method == first]
    others = [run for run in runs if run.config.method != first]
    if len({run.config.method for run in others}) != 1:
        raise UsageError(
            f"gain compares two methods, and these runs are of {len({run.config.method for run in runs})}",
            fix="give runs of the method first, then those of the baseline",
        )
    for members in (own, others):
        _one_configuration([run.config for run in members], "their seed")
        _distinct_seeds(members)
    return report.per_class_gain([run.metrics for run in own], [run.metrics for run in others])


def weights(runs: Sequence[Run], choices: Choices) -> Picture:
    """What the images of each class weighed, epoch by epoch, in a run that learned it."""
    return report.weights_over_training(report.learned_weights(runs[0]))


def virtual(runs: Sequence[Run], choices: Choices) -> Picture:
    """Virtual examples of each class from teachers, on the training images of the first run (DiVE)."""
    if not choices.temperature > 0:
        raise UsageError(f"temperature is {choices.temperature:g}; it must be above 0")
    first = runs[0].task
    for run in runs[1:]:
        if (run.task.class_names, run.task.image_shape) != (first.class_names, first.image_shape):
            raise UsageError(f"{run.path} is of {run.task.name}, with other classes or images than {first.name}")
    data = data_of(runs[0], choices.data_root)
    logits = {_title(run, runs): torch.from_numpy(run.logits(data.train.images)) for run in runs}
    teachers = {name: virtual_examples(z, choices.temperature).numpy() for name, z in logits.items()}
    return report.virtual_example_distribution(teachers, data.class_counts)


@dataclass(frozen=True)
class Kind:
    """A picture: its function, and how few and how many runs it takes (None: any number)."""

    draw: Callable[[Sequence[Run], Choices], Picture]
    least: int = 1
    most: int | None = None


KINDS = {
    "ratio": Kind(ratio, 2),
    "boundary": Kind(boundary, 1, 2),
    "forces": Kind(forces, 1, 4),
    "experts": Kind(experts, 1, 1),
    "groups": Kind(groups),
    "gain": Kind(gain, 2),
    "weights": Kind(weights, 1, 1),
    "virtual": Kind(virtual),
}


def draw(name: str, folders: Sequence[Path], choices: Choices) -> Picture:
    """Draw a picture of finished runs.

    Args:
        name: A name of `KINDS`.
        folders: The run folders.
        choices: What else was chosen.

    Raises:
        UsageError: The number of runs, or what they are of, does not fit the picture.
        LongtailError: A folder holds no finished run.
    """
    kind = KINDS[name]
    most = len(folders) if kind.most is None else kind.most
    if not kind.least <= len(folders) <= most:
        wanted = f"{kind.least}" if kind.least == kind.most else f"{kind.least} to {kind.most}"
        wanted = f"{kind.least} or more" if kind.most is None else wanted
        raise UsageError(f"figure {name} takes {wanted} run folder(s), and got {len(folders)}")
    runs = [Run(folder) for folder in folders]
    for run in runs:
        run.metrics  # noqa: B018  (says so where a run is not finished)
    if name in ("boundary", "forces"):
        _same_data(runs)
    return kind.draw(runs, choices)


def _ratio_of(run: Run) -> float:
    """Return the p of a run of H2T."""
    if "h2t" not in methods.parse(run.config.method):
        raise UsageError(
            f"{run.path} is a run of {run.config.method}, without +h2t", fix="p = 0 is --p 0 of the same method"
        )
    default = methods.part_options("h2t")["p"].default
    return float(run.config.options.get("h2t.p", default))


def _same_data(runs: Sequence[Run]) -> None:
    """Refuse runs on different training sets."""
    first = runs[0]
    for run in runs[1:]:
        if (run.task.name, run.task.class_counts) != (first.task.name, first.task.class_counts):
            raise UsageError(
                f"{run.path} was trained on another set than {first.path}: {run.task.name} at imbalance "
                f"{run.config.imbalance:g} and not {first.task.name} at {first.config.imbalance:g}"
            )


def _same_protocol(runs: Sequence[Run]) -> None:
    """Refuse runs on different training sets, or trained by different rules."""
    _same_data(runs)
    first = runs[0]
    for name in ("protocol", "epochs"):
        for run in runs[1:]:
            if run.metrics[name] != first.metrics[name]:
                raise UsageError(
                    f"{run.path} has {name} {run.metrics[name]}, {first.path} has {first.metrics[name]}; one picture "
                    "takes runs that were trained alike",
                    fix="draw one picture for each",
                )


def _one_configuration(configs: Sequence[RunConfig], what: str) -> None:
    """Refuse runs of one method that differ in more than ``what``, over which they are averaged."""
    labels = list(dict.fromkeys(labels_of(configs)))
    if len(labels) > 1:
        raise UsageError(
            f"the runs of {configs[0].method} differ in more than {what}: {' and '.join(labels)}",
            fix="give those of one configuration",
        )


def _distinct_seeds(runs: Sequence[Run]) -> None:
    """Refuse to count a seed of one configuration twice."""
    seen: dict[int, Run] = {}
    for run in runs:
        other = seen.setdefault(run.config.seed, run)
        if other is not run:
            raise UsageError(
                f"{other.path} and {run.path} are of one configuration and of one seed, {run.config.seed}",
                fix="give one of each seed",
            )


def _two_classes(run: Run, given: tuple[str, str] | None, tested: NDArray[np.int64]) -> tuple[int, int]:
    """Return the numbers of the frequent and the rare class.

    Args:
        run: A run.
        given: How they were named; None takes the largest and the smallest of those with test images.
        tested: Test images of each class, (C,).
    """
    counts, names = np.asarray(run.task.class_counts), run.task.class_names
    if given is None:
        with_images = np.flatnonzero(tested)
        if len(with_images) < 2:
            raise UsageError(f"{run.task.name} has test images of {len(with_images)} class(es); a boundary needs two")
        order = with_images[np.argsort(-counts[with_images], kind="stable")]
        return int(order[0]), int(order[-1])
    head, tail = (_class_number(run, word) for word in given)
    if head == tail:
        raise UsageError(f"--classes names class {given[0]} twice; it takes a frequent and a rare class")
    for number in (head, tail):
        if not tested[number]:
            raise UsageError(
                f"class {names[number]!r} of {run.task.name} has no test image, and the picture shows some of both",
                fix="--classes HEAD,TAIL with classes that have; without it, the rarest of those is taken",
            )
    return head, tail


def _class_number(run: Run, word: str) -> int:
    names = run.task.class_names
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise UsageError(
        f"--classes: there is no class {word!r} in {run.task.name}",
        fix=f"a name or a number from 0 to {len(names) - 1}",
    )


def _title(run: Run, runs: Sequence[Run]) -> str:
    """Return a run's method; with the folder's name where two runs are of one method."""
    again = sum(other.config.method == run.config.method for other in runs) > 1
    return f"{run.config.method} ({run.path.name})" if again else run.config.method
