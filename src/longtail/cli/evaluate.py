"""`longtail evaluate`: the metrics of a run again, from its test logits; also under other test distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.table import Table
from tyro.conf import Positional, arg

from longtail.cli.arguments import parse
from longtail.cli.experts import logits_with_experts, show_aggregation, show_assignment, show_experts
from longtail.cli.output import of_classes, percent, say, say_json, say_table
from longtail.config import read_config

if TYPE_CHECKING:
    from longtail.run import Run


@dataclass(frozen=True)
class Evaluate:
    """Compute the metrics of a finished run again from its test logits.

    Another distribution asks: what if the classes were as unequal at test time? The expected accuracy weighs the
    accuracy of each class by an exponential prior, with the head classes of training in front (forward) or the tail
    classes (backward); also if the run is told so, as by longtail predict --prior and --match.
    """

    run: Positional[str]
    """The run folder"""
    rule: Literal["kang", "oltr", "mislas"] = "kang"
    """How many, medium and few are drawn: kang (most papers), oltr, or mislas (also H2T)"""
    distribution: Literal["balanced", "forward", "backward"] = "balanced"
    """How often classes occur at test time"""
    test_imbalance: float = 50.0
    """Imbalance factor of the forward or backward test distribution"""
    experts: Annotated[bool, arg(help_behavior_hint="")] = False
    """Compare the experts of a run that has several: each one's accuracies, agreement, what their average gains"""
    aggregate: Annotated[bool, arg(help_behavior_hint="")] = False
    """Learn how much to trust each expert from the unlabelled test images, balanced, forward and backward (SADE)"""
    data_root: Annotated[str | None, arg(help_behavior_hint="")] = None
    """Folder of the data sets, for --aggregate (default: LONGTAIL_DATA, else ./.data)"""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON on stdout"""


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments = parse(Evaluate, "evaluate", words)
    report = evaluate(arguments)
    if arguments.json:
        say_json(report)
    else:
        _show(report)
    return 0


def evaluate(arguments: Evaluate) -> dict[str, Any]:
    """Return the metrics of a run, ready for JSON.

    Raises:
        LongtailError: The folder holds no finished run, or its logits are damaged.
        UsageError: The test imbalance is below 1, or experts are asked for and there are none.
    """
    read_config(Path(arguments.run))  # that there is no run is found before torch is imported
    from longtail.evaluation import (
        accuracy_given_prior,
        calibration_gain,
        class_prior,
        expected_accuracy,
        fit_posterior,
        metrics,
    )
    from longtail.run import load

    run = load(arguments.run)
    config, task = run.config, run.task
    found = logits_with_experts(run) if arguments.experts else run.test_logits()
    logits, targets = found["logits"], found["targets"]
    scores = metrics(logits, targets, task.class_counts, rule=arguments.rule)
    comparison = _of_experts(run, found) if arguments.experts else {}
    posterior = fit_posterior(logits, targets, task.class_counts)
    gain = calibration_gain(logits, targets, task.class_counts)
    prior = class_prior(task.class_counts, arguments.distribution, arguments.test_imbalance)
    if arguments.aggregate:
        comparison["aggregation"] = _aggregated(run, arguments)
    return {
        "path": str(run.path),
        "method": config.method,
        "dataset": config.dataset,
        "imbalance": config.imbalance,
        "protocol": config.protocol,
        "seed": config.seed,
        "rule": arguments.rule,
        **scores,
        "calibrated": {
            "temperature": posterior.temperature,
            "tau": posterior.tau,
            "ece": None if gain is None else 100 * gain[1],
        },
        "distribution": arguments.distribution,
        "test_imbalance": 1.0 if arguments.distribution == "balanced" else arguments.test_imbalance,
        "expected_top1": expected_accuracy(scores["per_class"], prior),
        "told": dict.fromkeys(("prior", "match"))  # what is fitted on so few images says nothing
        if gain is None
        else accuracy_given_prior(posterior, logits, targets, prior),
        "class_counts": list(task.class_counts),
        "class_names": list(task.class_names),
        "test_counts": np.bincount(targets, minlength=len(task.class_counts)).tolist(),
        **comparison,
    }


def _of_experts(run: Run, found: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Compare the experts of a run; where routers chose between them, tell how far images went."""
    from longtail.evaluation import expert_agreement, expert_assignment

    logits, targets, each = found["logits"], found["targets"], found["expert_logits"]
    if not np.isnan(each).any():
        return {"experts": expert_agreement(each, targets, logits)}
    from longtail.networks import multiplications

    return {"assignment": expert_assignment(each, targets, logits, multiplications(run.network, run.task.input_shape))}


def _aggregated(run: Run, arguments: Evaluate) -> dict[str, Any]:
    """Learn weights of the experts of a run on its test images."""
    from longtail.evaluation import class_prior
    from longtail.evaluation.label_shift import Distribution
    from longtail.report.aggregation import aggregate_experts
    from longtail.report.measure import data_of

    names: tuple[Distribution, ...] = ("balanced", "forward", "backward")
    priors: dict[str, NDArray[np.float64]] = {
        name: class_prior(run.task.class_counts, name, arguments.test_imbalance) for name in names
    }
    tests = aggregate_experts(run, data_of(run, arguments.data_root).test, priors)
    return {"test_imbalance": arguments.test_imbalance, "tests": tests}


def _show(report: dict[str, Any]) -> None:
    from longtail.evaluation import shot_groups

    groups = shot_groups(report["class_counts"], report["rule"])
    say(f"{report['method']} on {report['dataset']}, imbalance {report['imbalance']:g}, seed {report['seed']}")
    summary = Table(box=SIMPLE, show_header=False)
    names = {
        "top1": "top-1",
        "top5": "top-5",
        "many": "many",
        "medium": "medium",
        "few": "few",
        "balanced_accuracy": "mean over classes",
        "harmonic_mean": "harmonic mean",
        "ece": "calibration error",
    }
    for name, title in names.items():
        told = of_classes(groups[name].tolist(), report["per_class"]) if name in groups else ""
        summary.add_row(title, percent(report[name]), told)
    summary.add_row("the same, calibrated", percent(report["calibrated"]["ece"]))
    worst = report["worst_class"]
    summary.add_row("worst class", f"{worst['accuracy']:.1f} ({report['class_names'][worst['class']]})")
    kind, prior = "mean over classes", "balanced"
    if report["distribution"] != "balanced":
        kind, prior = f"top-1, {report['distribution']} test set", "with its frequencies"
        summary.add_row(f"{kind}, imbalance {report['test_imbalance']:g}", percent(report["expected_top1"]))
    for name, how in (("prior", f"predict --prior {prior}"), ("match", "... and --match")):
        summary.add_row(f"{kind}, {how}", percent(report["told"][name]))
    say_table(summary)
    classes = Table(box=SIMPLE)
    for title in ("class", "training images", "test images", "accuracy"):
        classes.add_column(title, justify="left" if title == "class" else "right")
    columns = (report[name] for name in ("class_names", "class_counts", "test_counts", "per_class"))
    for name, count, tests, accuracy in zip(*columns, strict=True):
        classes.add_row(name, str(count), str(tests), percent(accuracy))
    say_table(classes)
    if "experts" in report:
        show_experts(report["experts"], report["class_names"])
    if "assignment" in report:
        show_assignment(report["assignment"])
    if "aggregation" in report:
        show_aggregation(report["aggregation"])
