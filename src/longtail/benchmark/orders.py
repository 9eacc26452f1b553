"""Orders of methods that the decks' tables report, and whether committed results show them too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from longtail.benchmark import published
from longtail.benchmark.table import Row

LEARNED = 5.0
"""Top-1 accuracy in percent below which a row on a hundred classes has not learned: five times chance."""


class Order(NamedTuple):
    """A claim of a published table, one method above another, that is looked for on CIFAR-100-LT.

    Attributes:
        above: The method that the table has above, spelled as `longtail.methods.canonical` does, and in parentheses its
            options, without their method's name.
        below: The other.
        table: Name of the published table that holds both.
        dataset: Data set of the printed numbers.
    """

    above: str
    below: str
    table: str
    dataset: str = "cifar100"


ORDERS = (
    Order("independent-experts", "bbn", "deck-000-cifar100"),
    Order("independent-experts", "ldam+drw", "deck-000-cifar100"),
    Order("bbn", "ldam+drw", "deck-000-cifar100"),
    Order("ce+drw", "ce", "deck-001-cifar100"),
    Order("ce+drs", "ce", "deck-001-cifar100"),
    Order("bsce", "ce", "deck-001-cifar100"),
    Order("dive", "bsce", "deck-001-cifar100"),
    Order("ssd", "lws", "deck-001-cifar100"),
    Order("ssd", "bbn", "deck-001-cifar100"),
    Order("ssd", "ldam+drw", "deck-001-cifar100"),
    Order("ssd (row=teacher)", "ssd (row=I)", "deck-001-ssd-ablation", "imagenet-lt"),
    Order("ssd", "ssd (row=teacher)", "deck-001-ssd-ablation", "imagenet-lt"),
    Order("ssd", "ssd (row=III-hard)", "deck-001-ssd-ablation", "imagenet-lt"),
    Order("ssd (row=IV-LWS)", "ssd", "deck-001-ssd-ablation", "imagenet-lt"),
    Order("ssd (row=teacher)", "ssd (row=coupled)", "deck-001-ssd-strategies", "imagenet-lt"),
    Order("ssd (row=single)", "ssd (row=coupled)", "deck-001-ssd-strategies", "imagenet-lt"),
    Order("ssd", "ssd (row=single)", "deck-001-ssd-strategies", "imagenet-lt"),
    Order("dive", "dive (row=2)", "deck-001-dive-table6"),
    Order("dive", "dive (row=3)", "deck-001-dive-table6"),
    Order("dive (row=3)", "dive (row=4)", "deck-001-dive-table6"),
    Order("dive (row=2)", "dive (row=6)", "deck-001-dive-table6"),
    Order("ldam+drw", "ldam", "deck-002-cifar100"),
    Order("da-meta", "ce", "deck-002-cifar100"),
    Order("da-meta", "cb-ce", "deck-002-cifar100"),
    Order("da-meta", "l2rw", "deck-002-cifar100"),
    Order("da-meta", "meta-weight-net", "deck-002-cifar100"),
    Order("da-meta", "cb-finetune", "deck-002-cifar100"),
    Order("ride", "ldam+drw", "deck-003-cifar100"),
    Order("mislas", "ldam+drw", "deck-003-cifar100"),
    Order("gcl", "mislas", "deck-003-cifar100"),
    Order("crt+h2t", "crt+h2t (p=0.0)", "deck-003-cifar100"),
    Order("mislas+h2t", "mislas", "deck-003-cifar100"),
    Order("gcl+h2t", "gcl", "deck-003-cifar100"),
    Order("ride+h2t", "ride", "deck-003-cifar100"),
    Order("reslt+h2t", "reslt", "deck-003-cifar100"),
    Order("sade", "ride", "sade-readme"),
)


def published_gain(order: Order, imbalance: float) -> float | None:
    """Return by how many points the table has ``above`` over ``below``; None where a cell is empty.

    Of CIFAR-100-LT at an imbalance factor; another data set has its own.
    """
    own = order.dataset != "cifar100"
    values = {
        _named(cell.method, dict(cell.options)): cell.value
        for cell in reversed(published.table(order.table).cells)  # the first row of a method counts
        if (cell.dataset, cell.score, cell.profile) == (order.dataset, "top1", "exp")
        and (own or cell.imbalance == imbalance)
    }
    if order.above not in values or order.below not in values:
        return None
    return values[order.above] - values[order.below]


def compare(rows: Iterable[Row], imbalance: float) -> list[str]:
    """Return a Markdown table of the orders of which both methods are among some rows; empty without any.

    To be above a row that did not learn confirms nothing, and the table says so.

    Args:
        rows: Rows of one protocol on CIFAR-100-LT, all with or all without held-out images.
        imbalance: The imbalance factor of all of them.
    """
    ours = {_of_label(row.method): row.scores["top1"] for row in rows}
    lines = []
    for order in ORDERS:
        above, below = ours.get(order.above), ours.get(order.below)
        told = published_gain(order, imbalance)
        if above is None or below is None or told is None:
            continue
        gain = above.mean - below.mean
        verdict = "yes" if gain > 0 else "no"
        if min(above.mean, below.mean) < LEARNED:
            verdict = "not comparable: one did not learn"
        lines.append(
            f"| `{order.above}` above `{order.below}` | {_place(order)} | {told:+.1f} | {gain:+.1f} | {verdict} |"
        )
    head = ["| Order | Table | Published | Here | Holds |", "| --- | --- | ---: | ---: | --- |"]
    return [*head, *lines] if lines else []


def _place(order: Order) -> str:
    """Return the table of an order, with its data set where that is not ours."""
    return order.table if order.dataset == "cifar100" else f"{order.table} ({order.dataset})"


def experts(results: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return a Markdown table of the experts of methods that have several, beside the answer of all together.

    Args:
        results: Labels of rows, and a result of each.
    """
    lines = []
    for name, result in sorted(results, key=lambda pair: (pair[0], pair[1]["metrics"]["seed"])):
        metrics, own = result["metrics"], result.get("experts")
        if own:
            each, over = ", ".join(f"{value:.1f}" for value in own), metrics["top1"] - max(own)
            lines.append(f"| `{name}` | {metrics['seed']} | {each} | {metrics['top1']:.1f} | {over:+.1f} |")
    head = ["| Method | Seed | Experts | Together | Over the best expert |", "| --- | ---: | --- | ---: | ---: |"]
    return [*head, *lines] if lines else []


def bare(label: str) -> str:
    """Return the method of a row's label, without what stands in parentheses behind it."""
    return label.partition(" (")[0]


def _of_label(label: str) -> str:
    """Return a row's label with options as `Order` has them."""
    pairs = [pair.partition("=") for pair in label.partition(" (")[2].rstrip(")").split(", ") if pair]
    return _named(bare(label), {name.rpartition(".")[2]: value for name, _, value in pairs})


def _named(method: str, options: Mapping[str, str]) -> str:
    told = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"{method} ({told})" if told else method
