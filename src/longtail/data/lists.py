"""List files, one ``path class-number`` a line: ImageNet-LT, Places-LT, iNaturalist 2018, and others of their kind."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from longtail.data.listing import SPLITS, Item, Listing
from longtail.data.problems import Problem
from longtail.data.root import data_root
from longtail.errors import LongtailError, UsageError

_LINE = re.compile(r"(.+?)[ \t]+(\d{1,9})")


@dataclass(frozen=True)
class _Published:
    """A benchmark that is given as list files."""

    folders: tuple[str, ...]
    stem: str
    source: str


_OLTR = "the lists are linked from github.com/zhmiao/OpenLongTailRecognition-OLTR"
_PUBLISHED = {
    "imagenet-lt": _Published(("imagenet-lt", "ImageNet_LT", "ImageNet-LT"), "ImageNet_LT", _OLTR),
    "places-lt": _Published(("places-lt", "Places_LT", "Places-LT"), "Places_LT", _OLTR),
    "inat18": _Published(
        ("inat18", "iNaturalist18", "inat2018"),
        "iNaturalist18",
        "the lists are in github.com/facebookresearch/classifier-balancing, data/iNaturalist18",
    ),
}
LIST_DATASETS = tuple(_PUBLISHED)
"""Names of the published benchmarks that are read from list files."""


def read_published(name: str, root: str | os.PathLike[str] | None) -> Listing:
    """List the files of a published benchmark: ``ROOT/imagenet-lt`` with its list files and its images.

    Args:
        name: One of `LIST_DATASETS`.
        root: Folder of the data sets; None takes ``LONGTAIL_DATA``, else ``./.data``.

    Raises:
        LongtailError: The training list is not there, or a list is damaged.
    """
    known = _PUBLISHED[name]
    where, origin = data_root(root)
    for folder in (*(where / folder for folder in known.folders), where):
        found = _existing(folder / f"{known.stem}_train.txt")
        if found is not None:
            return read_lists(found, name)
    raise LongtailError(
        f"{name}: no {known.stem}_train.txt in {(where / known.folders[0]).resolve()} ({origin})",
        fix=f"put the lists there, beside the folders of images that they name; {known.source}",
    )


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
        path = _existing(train.with_name(base.replace("_train.txt", f"_{split}.txt")))
        for file, number in _read_list(path) if path is not None else ():
            if file in lines:
                problems.append(Problem(file, "listed twice", f"in {lines[file][2]}, then in {split}"))
            else:
                lines[file] = file, number, split
    names = _class_names(list(lines.values()))
    items = tuple(Item(file, names[number], split) for file, number, split in lines.values())
    return Listing(name, train, train.parent, tuple(names[number] for number in sorted(names)), items, tuple(problems))


def _existing(path: Path) -> Path | None:
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
