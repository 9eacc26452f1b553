"""List files, one ``path class-number`` a line, as ImageNet-LT, Places-LT and iNaturalist 2018 are published."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from longtail.data.listing import SPLITS, Item, Listing
from longtail.data.problems import Problem
from longtail.errors import LongtailError, UsageError

_LINE = re.compile(r"(.+?)[ \t]+(\d{1,9})")


def read_lists(train: Path, name: str) -> Listing:
    """List the files of ``NAME_train.txt``, and of ``NAME_val.txt`` and ``NAME_test.txt`` beside it; or ``.txt.gz``.

    Paths are relative to the lists' folder. A class is named after the folders that its images share, as in
    ``train/n01440764/n01440764_762.JPEG``; where they do not agree, after its number.

    Args:
        train: The training list.
        name: Short name of the data set.

    Raises:
        UsageError: The file's name does not end with ``_train.txt``.
        LongtailError: A list cannot be read, or a line is not ``path class-number``.
    """
    base = train.name.removesuffix(".gz")
    if not base.endswith("_train.txt"):
        raise UsageError(
            f"{train}: a list of images must be called NAME_train.txt, beside NAME_val.txt and NAME_test.txt",
            fix="or write a CSV file with the columns path, label and split",
        )
    lines: dict[str, tuple[str, int, str]] = {}
    problems = []
    for split in SPLITS:
        path = existing(train.with_name(base.replace("_train.txt", f"_{split}.txt")))
        for file, number in _read_list(path) if path is not None else ():
            if file in lines:
                problems.append(Problem(file, "listed twice", f"in {lines[file][2]}, then in {split}"))
            else:
                lines[file] = file, number, split
    names = _class_names(list(lines.values()))
    items = tuple(Item(file, names[number], split) for file, number, split in lines.values())
    return Listing(name, train, train.parent, tuple(names[number] for number in sorted(names)), items, tuple(problems))


def existing(path: Path) -> Path | None:
    """Return a file or its packed form, ``.gz`` behind the name; None where neither is there."""
    packed = path.with_name(f"{path.name}.gz")
    return next((candidate for candidate in (path, packed) if candidate.is_file()), None)


def _read_list(path: Path) -> list[tuple[str, int]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LongtailError(f"{path}: cannot be read as a list ({error})") from error
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        match = _LINE.fullmatch(stripped)
        if match:
            rows.append((match[1], int(match[2])))
        elif stripped:
            raise LongtailError(f"{path}, line {number}: {stripped[:60]!r} is not 'path class-number'")
    return rows


def _class_names(lines: list[tuple[str, int, str]]) -> dict[int, str]:
    """Return a name for each class number: the folders between first and last, where they tell the classes apart."""
    folders: dict[int, str] = {}
    for file, number, _ in lines:
        middle = "/".join(file.split("/")[1:-1])
        if not middle or folders.setdefault(number, middle) != middle:
            return {n: str(n) for _, n, _ in lines}
    return folders if len(set(folders.values())) == len(folders) else {n: str(n) for n in folders}
