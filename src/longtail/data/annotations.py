"""Annotation files as COCO has them: images, categories, and which image shows which.

iNaturalist and the collections of camera traps are published so.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longtail.data.listing import SPLITS, Item, Listing, class_order
from longtail.data.problems import Problem
from longtail.errors import LongtailError

_PARTS = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}
_PLACES = (".", "images", "..", "../images")


def read_annotations(path: Path, name: str) -> Listing:
    """List the images of an annotation file; beside ``train2018.json`` also those of ``val2018.json`` and the test's.

    Images are looked for beside the file, in ``images``, and in both of its parent. Classes are the categories that
    some image has, in the order of their numbers. An image with several annotations of one category has that class; one
    with several categories, or none, is left out.

    Args:
        path: The file, as COCO's: ``images`` (``id``, ``file_name``), ``annotations`` (``image_id``, ``category_id``)
            and ``categories`` (``id``, ``name``).
        name: Short name of the data set.

    Raises:
        LongtailError: A file cannot be read, is no annotation file, or two of them contradict each other.
    """
    parts = {split: other for split in SPLITS if (other := _partner(path, split)) is not None} or {"": path}
    categories: dict[str, str] = {}
    items: dict[str, Item] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for split, file in parts.items():
        content = _read(file)
        if not content["annotations"] and file != path:
            notes.append(f"{file.name} says no classes and is left out")
            continue
        for number, label in _categories(content, file).items():
            if categories.setdefault(number, label) != label:
                raise LongtailError(f"{file}: category {number} is {label!r}, but elsewhere {categories[number]!r}")
        shown = _shown(content, file)
        for image in content["images"]:
            found, where = shown.get(image["id"], set()), str(image["file_name"])
            if len(found) != 1:
                told = f"{len(found)} categories" if found else "no annotation"
                problems.append(Problem(where, "several classes" if found else "no class", told))
            elif where in items:
                problems.append(Problem(where, "listed twice", f"again in {file.name}"))
            else:
                items[where] = Item(where, next(iter(found)), split)
    if not items:
        raise LongtailError(f"{path}: no image has one category, of {len(problems)}")
    numbers = class_order([item.label for item in items.values()])
    if unknown := [number for number in numbers if number not in categories]:
        raise LongtailError(f"{path}: annotations name category {unknown[0]}, which is not among the categories")
    labels = _distinct({number: categories[number] for number in numbers})
    named = tuple(item._replace(label=labels[item.label]) for item in items.values())
    root = _root(path.parent, items)
    return Listing(name, path, root, tuple(labels.values()), named, tuple(problems), tuple(notes))


def _partner(path: Path, split: str) -> Path | None:
    """Return the file of a split beside a training file, itself among them; None where there is none."""
    if "train" not in path.name:
        return None
    other = path.with_name(path.name.replace("train", split))
    return other if other.is_file() else None


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise LongtailError(f"{path}: cannot be read as annotations ({error})") from error
    parts: Mapping[str, Any] = content if isinstance(content, dict) else {}
    for part, keys in _PARTS.items():
        # Images to be tested on come without annotations, and perhaps without categories.
        rows = parts.get(part, [] if part != "images" else None)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= {*keys} for row in rows):
            raise LongtailError(
                f"{path}: no annotation file, {part!r} must be a list of objects with {' and '.join(keys)}",
                fix="known are COCO's files, and CSV files with the columns path and label",
            )
    return {part: parts.get(part, []) for part in _PARTS}


def _categories(content: Mapping[str, list[dict[str, Any]]], path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for row in content["categories"]:
        number = str(row["id"])
        if names.setdefault(number, str(row["name"]).strip() or number) != (str(row["name"]).strip() or number):
            raise LongtailError(f"{path}: category {number} has two names")
    return names


def _shown(content: Mapping[str, list[dict[str, Any]]], path: Path) -> dict[Any, set[str]]:
    """Return the categories of each image."""
    shown: dict[Any, set[str]] = defaultdict(set)
    try:
        for row in content["annotations"]:
            shown[row["image_id"]].add(str(row["category_id"]))
        known = {image["id"] for image in content["images"]}
    except TypeError as error:  # a list or an object in the place of a number
        raise LongtailError(f"{path}: an id is no number and no text") from error
    if astray := shown.keys() - known:
        raise LongtailError(f"{path}: an annotation is of image {next(iter(astray))!r}, which is not among the images")
    return shown


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Put the number behind names that several categories have."""
    often = Counter(names.values())
    return {number: name if often[name] == 1 else f"{name} ({number})" for number, name in names.items()}


def _root(folder: Path, files: Iterable[str]) -> Path:
    """Return where the images lie: the first place that has the first of them; the file's folder where none has."""
    first = next(iter(files), "")
    return next((folder / place for place in _PLACES if (folder / place / first).is_file()), folder)
