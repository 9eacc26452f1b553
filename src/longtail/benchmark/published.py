"""Numbers that papers, their codes and slides printed, as data: one CSV file per table in ``tables/``.

A file holds a table as printed. What holds for all of it (data set, backbone, epochs, source ...) stands in
``tables/tables.yaml``, and ``tables/README.md`` tells what the columns mean.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from longtail.errors import unknown_name

SCORES = ("top1", "top3", "top5", "many", "medium", "few", "ece", *(f"class{k}" for k in range(10)))
DATASETS = ("cifar10", "cifar100", "imagenet-lt", "places-lt", "inat17", "inat18")
IMBALANCES = {"imagenet-lt": 256.0, "places-lt": 996.0, "inat18": 500.0}
_FACTS = ("dataset", "imbalance", "metric", "score", "backbone", "epochs", "augmentation", "protocol", "groups", "tag")
_OF_ROWS = ("row", "method", "options", "source", "note", "dev", *_FACTS)
_USUAL = {"augmentation": ("", "crop and flip", "crop and flip, reflected border", "crop, flip and rotation")}


@dataclass(frozen=True)
class Published:
    """One printed number. Most papers report the best epoch on the test set; protocols differ between sources.

    Attributes:
        method: Name of the method here, such as ``ldam+drw``; empty for one that has no name here.
        dataset: ``cifar10``, ``cifar100``, ``imagenet-lt``, ``places-lt``, ``inat17`` or ``inat18``.
        imbalance: Imbalance factor; None where it is not known.
        metric: How the source prints it.
        value: In percent; errors are turned into accuracies (all but ``ece``).
        source: Paper, README or talk that prints it.
        note: What sets the number apart; may be empty.
        score: ``top1``, ``top3``, ``top5``, ``many``, ``medium``, ``few``, ``ece`` or ``class0`` to ``class9``.
        printed: The number as printed.
        options: Options of the method, as pairs of name and value.
        profile: ``exp`` or ``step``.
        backbone: As the source names it.
        epochs: Of training, None where it is not said.
        augmentation: In words.
        protocol: Which epoch was reported, in words.
        groups: Rule behind many, medium and few: ``kang``, ``oltr``, ``mislas``, or ``unclear``.
        dev_per_class: Images per class that the method takes as a development set.
        tag: How the number was read: ``slides``, ``README``, ``poster``, ``figure``, ``log``, ``issue``, ``page`` or
            ``third party``.
        table: Name of the table.
        row: Label of the row, as printed.
    """

    method: str
    dataset: str
    imbalance: float | None
    metric: Literal["accuracy", "error"]
    value: float
    source: str
    note: str
    score: str = "top1"
    printed: float = 0.0
    options: tuple[tuple[str, str], ...] = ()
    profile: str = "exp"
    backbone: str = ""
    epochs: int | None = None
    augmentation: str = ""
    protocol: str = ""
    groups: str = ""
    dev_per_class: int = 0
    tag: str = ""
    table: str = ""
    row: str = ""

    @property
    def is_usual(self) -> bool:
        """Whether backbone and augmentation are those that most papers on the data set use."""
        backbones = ("", "ResNet-32") if self.dataset.startswith("cifar") else ("", self.backbone)
        several = self.backbone.startswith("ResNet-32") and ("," in self.backbone or " and " in self.backbone)
        return (self.backbone in backbones or several) and self.augmentation in _USUAL["augmentation"]


@dataclass(frozen=True)
class Row:
    """One row of a table as printed.

    Attributes:
        label: As printed.
        method: Name of the method here, or empty.
        options: Options of the method, as pairs of name and value.
        source: Who printed it first.
        note: What sets it apart.
        cells: The numbers by column.
    """

    label: str
    method: str
    options: tuple[tuple[str, str], ...]
    source: str
    note: str
    cells: Mapping[str, Published]


@dataclass(frozen=True)
class Table:
    """A table as printed.

    Attributes:
        name: Such as ``deck-003-cifar100``.
        title: In words.
        source: Who printed it.
        note: What to know of the whole of it.
        columns: Titles of the columns with numbers.
        rows: The rows.
    """

    name: str
    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def cells(self) -> list[Published]:
        """All numbers, row after row."""
        return [cell for row in self.rows for cell in row.cells.values()]


@dataclass(frozen=True)
class _Book:
    """Content of ``tables.yaml``."""

    sources: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@cache
def _book() -> _Book:
    content = yaml.safe_load(_text("tables/tables.yaml"))
    return _Book(content["sources"], content["tables"])


def _text(name: str) -> str:
    return files("longtail.benchmark").joinpath(name).read_text(encoding="utf-8")


def names() -> list[str]:
    """Return the names of all tables."""
    return list(_book().tables)


@cache
def table(name: str) -> Table:
    """Return a table.

    Raises:
        UsageError: There is none of that name.
    """
    book = _book()
    if name not in book.tables:
        raise unknown_name("table", name, book.tables)
    facts = book.tables[name]
    reader = csv.DictReader(_text(f"tables/{name}.csv").splitlines())
    columns = tuple(column for column in reader.fieldnames or () if column not in _OF_ROWS)
    rows = tuple(_row(name, facts, columns, line) for line in reader)
    return Table(name, facts["title"], _source(facts["source"]), facts.get("note", ""), columns, rows)


def _row(name: str, facts: Mapping[str, Any], columns: Iterable[str], line: Mapping[str, str]) -> Row:
    options = tuple(pair for text in (line.get("options") or "").split(";") if (pair := _pair(text)))
    said = {key: line[key] for key in _FACTS if line.get(key)}
    source = _source(line.get("source") or facts["source"])
    about = {"metric": "accuracy", "score": "top1", **facts, **said}
    common: dict[str, Any] = {
        "method": line.get("method") or "",
        "options": options,
        "source": source,
        "note": line.get("note") or "",
        "table": name,
        "row": line["row"],
        "dev_per_class": int(line.get("dev") or 0),
    }
    cells = {c: _cell(c, line[c], about, common) for c in columns if line.get(c)}
    return Row(line["row"], common["method"], options, source, common["note"], cells)


def _pair(text: str) -> tuple[str, str] | None:
    name, equals, value = text.partition("=")
    return (name.strip(), value.strip()) if equals else None


def _source(key: str) -> str:
    return _book().sources.get(key, key)


def _cell(column: str, text: str, about: Mapping[str, Any], common: Mapping[str, Any]) -> Published:
    facts = {**about, **_column_facts(column)}
    printed = float(text)
    value = round(100.0 - printed, 3) if facts["metric"] == "error" and facts["score"] != "ece" else printed
    dataset = facts["dataset"]
    imbalance = facts.get("imbalance") or IMBALANCES.get(dataset)
    return Published(
        dataset=dataset,
        imbalance=None if imbalance is None else float(imbalance),
        metric=facts["metric"],
        value=value,
        printed=printed,
        score=facts["score"],
        profile=facts.get("profile", "exp"),
        epochs=int(facts["epochs"]) if facts.get("epochs") else None,
        **{key: facts.get(key, "") for key in ("backbone", "augmentation", "protocol", "groups", "tag")},
        **common,
    )


def _column_facts(column: str) -> dict[str, Any]:
    """Read a column's title: words such as ``cifar10``, ``IF100``, ``step``, ``90ep`` and ``few``.

    Raises:
        ValueError: A word means nothing.
    """
    facts: dict[str, Any] = {}
    for word in column.split():
        if word in DATASETS:
            facts["dataset"] = word
        elif word in SCORES:
            facts["score"] = word
        elif word == "step":
            facts["profile"] = word
        elif word.startswith("IF"):
            facts["imbalance"] = float(word[2:])
        elif word.endswith("ep"):
            facts["epochs"] = int(word[:-2])
        else:
            raise ValueError(f"column {column!r}: {word!r} is no data set, score, IF, step or epochs")
    return facts


@cache
def load() -> tuple[Published, ...]:
    """Return all published numbers, table after table."""
    return tuple(cell for name in names() for cell in table(name).cells)


def find(
    method: str,
    dataset: str | None = None,
    imbalance: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Published]:
    """Return what was published for a method: overall accuracy, exponential profile.

    A number that several sources quote stands once, under the first of them.

    Args:
        method: ``METHOD`` or ``METHOD+MODIFIER+...``, spelled as `longtail.methods.canonical` does.
        dataset: Keep one data set only.
        imbalance: Keep one imbalance factor only.
        options: Its options by name, those of its defaults left out; None: its own defaults.
    """
    wanted = _by_name(options or {})
    chosen = [
        row
        for row in load()
        if (row.method, row.score, row.profile, _by_name(dict(row.options))) == (method, "top1", "exp", wanted)
        and dataset in (None, row.dataset)
        and imbalance in (None, row.imbalance)
    ]
    once: dict[tuple[Any, ...], Published] = {}
    for row in chosen:
        once.setdefault((row.dataset, row.imbalance, row.backbone, row.value), row)
    return list(once.values())


def _by_name(options: Mapping[str, Any]) -> dict[str, str]:
    """Return options without the part that they belong to, which tables leave out where only one part has them."""
    return {name.rpartition(".")[2]: str(value) for name, value in options.items()}


def span(rows: Iterable[Published]) -> str:
    """Return the range of some published numbers, such as ``38.3-39.6``; empty without any."""
    values = sorted(row.value for row in rows)
    if not values:
        return ""
    low, high = f"{values[0]:.1f}", f"{values[-1]:.1f}"
    return low if low == high else f"{low}-{high}"
