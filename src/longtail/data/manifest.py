"""A CSV manifest: one image a line, with its class and, if there is one, its split."""

from __future__ import annotations

import csv
from pathlib import Path

from longtail.data.listing import SPLIT_WORDS, Item, Listing, class_order
from longtail.data.problems import Problem
from longtail.errors import LongtailError

_COLUMNS = ("path", "label", "split")


def read_manifest(path: Path, name: str) -> Listing:
    """List the files of a manifest with the columns ``path``, ``label`` and, if wanted, ``split``.

    Separated by commas, semicolons or tabs; UTF-8. Paths are relative to the manifest's folder, or absolute. Other
    columns are left alone.

    Args:
        path: The manifest.
        name: Short name of the data set.

    Raises:
        LongtailError: The manifest cannot be read, lacks a column or all images, or a line has too many columns, no
            path, no label or an unknown split.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            rows = list(csv.reader(file, delimiter=_delimiter(header), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LongtailError(f"{path}: cannot be read as a CSV manifest ({error})") from error
    columns = [column.strip().lower() for column in rows[0]] if rows else []
    if "path" not in columns or "label" not in columns:
        raise LongtailError(
            f"{path}: the first line must name the columns path and label (and split, if there is one), "
            f"not {', '.join(columns) or 'nothing'}"
        )
    places = [columns.index(column) for column in _COLUMNS if column in columns]
    items: dict[str, Item] = {}
    problems = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if any(row[len(columns) :]):
            raise LongtailError(
                f"{path}, line {number} has {len(row)} columns, the header {len(columns)}",
                fix='a comma within a name needs quotes around it: "a, b.jpg",label',
            )
        item = _item(path, number, row, places)
        before = items.setdefault(item.path, item)
        if before is not item:
            detail = "the same line again" if before == item else f"as {_told(before)}, then as {_told(item)}"
            problems.append(Problem(item.path, "listed twice", detail))
    if not items:
        raise LongtailError(f"{path}: no image is listed below the header", fix="name one image a line: path,label")
    classes = class_order([item.label for item in items.values()])
    return Listing(name, path, path.parent, classes, tuple(items.values()), tuple(problems))


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _item(path: Path, number: int, row: list[str], places: list[int]) -> Item:
    cells = [row[place] if place < len(row) else "" for place in places]
    file, label, word = cells[0], cells[1].strip(), cells[2].strip() if len(cells) > 2 else ""
    if not file.strip() or not label:
        raise LongtailError(f"{path}, line {number}: {'path' if not file.strip() else 'label'} is empty")
    split = SPLIT_WORDS.get(word.lower(), "") if word else ""
    if word and not split:
        raise LongtailError(f"{path}, line {number}: unknown split {word!r}", fix="known: train, val, test")
    if len(places) > 2 and not word:
        raise LongtailError(f"{path}, line {number}: split is empty", fix="name it in every line, or drop the column")
    return Item(file, label, split)


def _told(item: Item) -> str:
    return f"{item.label} in {item.split}" if item.split else item.label
