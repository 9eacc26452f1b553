"""Which files belong to a person's data set, with class and split: what the readers of folders and lists return."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from longtail.data.decode import EXTENSIONS
from longtail.data.problems import Problem
from longtail.errors import LongtailError

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Words for splits, in lower case."""


class Item(NamedTuple):
    """One file.

    Attributes:
        path: Relative to the listing's root, or absolute.
        label: Name of its class.
        split: ``train``, ``val``, ``test``, or empty where nothing said.
    """

    path: str
    label: str
    split: str


@dataclass(frozen=True)
class Listing:
    """All files of a data set, none opened yet.

    Attributes:
        name: Short name of the data set.
        source: What was named: a folder or a list.
        root: Where relative paths begin.
        classes: Names of all classes, in the order of their numbers.
        items: The files.
        problems: What was wrong so far.
        notes: What was decided while reading, in sentences.
    """

    name: str
    source: Path
    root: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def full_path(self, item: Item) -> Path:
        """Return where a file lies."""
        return self.root / item.path

    def settled(self) -> Listing:
        """Return the listing with one meaning for each split: where there is ``val`` but no ``test``, it is the test.

        Raises:
            LongtailError: There are no files, only one class, or no training files.
        """
        if not self.items:
            outside = (problem.path for problem in self.problems if problem.kind == "outside")
            loose = sum(Path(path).suffix.lower() in EXTENSIONS for path in outside)
            lie = f"{loose} image{' lies' if loose == 1 else 's lie'} outside class folders, and none in one"
            raise LongtailError(
                f"{self.source}: {lie if loose else 'no image found'}",
                fix="a folder must hold one folder for each class, with its images inside: DATA/CLASS/*.jpg",
            )
        if len(self.classes) < 2:
            raise LongtailError(f"{self.source}: only one class ({self.classes[0]}); a classifier needs two")
        splits = {item.split for item in self.items}
        if splits != {""} and "train" not in splits:
            raise LongtailError(f"{self.source}: no training images, only {', '.join(sorted(splits - {''}))}")
        if "val" in splits and "test" not in splits:
            items = tuple(item._replace(split="test") if item.split == "val" else item for item in self.items)
            return replace(self, items=items, notes=(*self.notes, "there is no test split: the validation split is it"))
        return self


def class_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct names in the order of their numbers: whole numbers by value, all else as text."""
    distinct = set(names)
    if all(re.fullmatch(r"\d{1,9}", name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def tidy_name(name: str) -> str:
    """Return a class name that can be written as UTF-8, whatever bytes the file system holds."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def short_name(path: Path, taken: Sequence[str]) -> str:
    """Return a name for run folders, made from a path and different from the names of known data sets."""
    stem = path.name.removesuffix(".gz")
    stem = Path(stem).stem if path.is_file() else stem
    short = re.sub(r"[^\w.-]+", "-", tidy_name(stem)).strip("-.") or "images"
    return f"{short}-images" if short in taken else short
