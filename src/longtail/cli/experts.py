"""The part of `longtail evaluate` that tells of the experts of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

from longtail.cli.output import percent, say, say_table
from longtail.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from longtail.run import Run


def logits_with_experts(run: Run) -> dict[str, NDArray[Any]]:
    """Return the test logits of a run, with those of its experts; see `Run.test_logits`.

    Raises:
        LongtailError: They are missing or damaged.
        UsageError: The run has one network and no experts.
    """
    found = run.test_logits(experts=True)
    if "expert_logits" not in found:
        raise UsageError(
            f"{run.path} is a run of a single network: it has no experts to compare",
            fix="name a run that has several, of ride or independent-experts for example",
        )
    return found


def show_experts(report: dict[str, Any], class_names: Sequence[str]) -> None:
    """Print what `longtail.evaluation.expert_agreement` returned."""
    experts = report["experts"]
    say_table(_accuracies(report))
    for number, expert in enumerate(experts, 1):
        say(_arithmetic(number, expert, report))
    if len(experts) > 1:
        say_table(_pairs(report))
    say_table(_classes(report, class_names))


def show_assignment(report: dict[str, Any]) -> None:
    """Print what `longtail.evaluation.expert_assignment` returned."""
    table = _table("experts asked", "images (%)", "top-1")
    for number, row in enumerate(report["by_experts"], 1):
        table.add_row(str(number), f"{row['share']:.1f}", percent(row["top1"]))
    say_table(table)
    saved = 100 * (1 - report["gflops"] / report["gflops_of_all"])
    say(
        f"{report['experts_used']:.2f} of {report['experts']} experts on average: {report['gflops']:.3g} of "
        f"{report['gflops_of_all']:.3g} GFLOPs an image, {saved:.0f} % saved"
    )


def show_aggregation(report: Mapping[str, Any]) -> None:
    """Print what weights of the experts were learnt.

    Args:
        report: ``tests``, from `longtail.report.aggregation.aggregate_experts`, and the ``test_imbalance`` of the
            long-tailed ones.
    """
    say("weights of the experts, learnt on the unlabelled test images (transductive)")
    tests: dict[str, dict[str, Any]] = report["tests"]
    experts = len(tests["balanced"]["weights"])
    table = Table(box=SIMPLE)
    table.add_column("test set", justify="left")
    for title in ("images", *(f"expert {n}" for n in range(1, experts + 1)), "top-1 of the mean", "weighted"):
        table.add_column(title, justify="right")
    for name, row in tests.items():
        title = name if name == "balanced" else f"{name}, imbalance {report['test_imbalance']:g}"
        shares = (f"{weight:.2f}" for weight in row["weights"])
        table.add_row(title, str(row["images"]), *shares, f"{row['mean_top1']:.2f}", f"{row['weighted_top1']:.2f}")
    say_table(table)


def _accuracies(report: dict[str, Any]) -> Table:
    table = _table("", "top-1", "top-5", "right, together wrong", "wrong, together right")
    table.add_row("together", f"{report['average']['top1']:.2f}", percent(report["average"]["top5"]), "", "")
    for number, expert in enumerate(report["experts"], 1):
        counts = (str(expert["right_average_wrong"]), str(expert["wrong_average_right"]))
        table.add_row(f"expert {number}", f"{expert['top1']:.2f}", percent(expert["top5"]), *counts)
    return table


def _arithmetic(number: int, expert: dict[str, Any], report: dict[str, Any]) -> str:
    won, lost, images = expert["wrong_average_right"], expert["right_average_wrong"], report["images"]
    gain, top1, average = expert["average_gain"], expert["top1"], report["average"]["top1"]
    return f"expert {number}: ({won} - {lost}) / {images} = {gain:+.2f} %;  {top1:.2f} {gain:+.2f} = {average:.2f}"


def _pairs(report: dict[str, Any]) -> Table:
    table = _table("pair of experts", "different answers", "correlation of errors")
    size = len(report["experts"])
    for i in range(size):
        for j in range(i + 1, size):
            correlation = report["error_correlation"][i][j]
            shown = "n/a" if correlation is None else f"{correlation:.2f}"
            table.add_row(f"{i + 1}, {j + 1}", f"{100 * report['disagreement'][i][j]:.1f}", shown)
    return table


def _classes(report: dict[str, Any], class_names: Sequence[str]) -> Table:
    answers = [report["average"], *report["experts"]]
    table = _table("class accuracy", "together", *(f"expert {n}" for n in range(1, len(answers))))
    for index, name in enumerate(class_names):
        table.add_row(name, *(percent(answer["per_class"][index]) for answer in answers))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE)
    table.add_column(first, justify="left")
    for title in others:
        table.add_column(title, justify="right")
    return table
