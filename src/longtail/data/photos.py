"""A person's own images as a data set: listed, looked at, split, decoded once, mapped into memory."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from longtail.data import decode
from longtail.data.annotations import read_annotations
from longtail.data.assemble import Entry, assemble
from longtail.data.benchmarks import FILE_DATASETS, read_benchmark
from longtail.data.cache import cache_root, open_cache
from longtail.data.folder import read_folder
from longtail.data.holdout import TEST_SHARE, choose_test
from longtail.data.imageset import LongTailData
from longtail.data.listing import SPLITS, Listing, short_name
from longtail.data.lists import read_lists
from longtail.data.manifest import read_manifest
from longtail.data.problems import Problem, refuse
from longtail.data.scan import Tell, scan
from longtail.errors import LongtailError, UsageError

SIZES = (8, 16, 32, 48, 64, 96, 128, 160, 192, 224)
"""Training sizes that are chosen by themselves; pretrained networks expect the largest."""

_ENDINGS = (".csv", ".tsv", ".txt", ".txt.gz", ".json")
_LARGEST_SIZE = 1024
_PUBLISHED_SIZE = 256  # of which the papers' networks see 224


def is_path(name: str) -> bool:
    """Return whether a name stands for a folder or a list of images, and not for a data set by name."""
    return os.sep in name or name.endswith(_ENDINGS) or name == "." or Path(name).exists()


def load_photos(
    name: str,
    *,
    root: str | os.PathLike[str] | None,
    dev_per_class: int,
    image_size: int | None,
    strict: bool,
    subset_seed: int,
    known: Sequence[str],
    tell: Tell,
) -> LongTailData:
    """Load a folder, a manifest, a list, annotations, or a published benchmark of files; see `longtail.data.load`.

    Raises:
        UsageError: The path does not exist, or a size or development set is out of range.
        LongtailError: Nothing is there to train on; or, with ``strict``, any problem.
    """
    if image_size is not None and not 8 <= image_size <= _LARGEST_SIZE:
        raise UsageError(f"image_size is {image_size}; it must be within 8..{_LARGEST_SIZE}")
    listing = (read_benchmark(name, root) if name in FILE_DATASETS else _list_path(Path(name), known)).settled()
    entries, listing = _look(listing, tell)
    entries, listing = _split(entries, listing)
    entries.sort(key=lambda e: (SPLITS.index(e.item.split), e.item.label, e.seen.digest, e.item.path))
    published = _PUBLISHED_SIZE if name in FILE_DATASETS else None
    size = image_size or published or default_size([(e.seen.width, e.seen.height) for e in entries])
    fingerprint = _fingerprint(entries)
    cache = open_cache(
        f"{fingerprint}-{size}px-v{decode.VERSION}",
        [listing.full_path(entry.item) for entry in entries],
        size,
        tell,
    )
    data = assemble(listing, entries, cache, fingerprint, dev_per_class, subset_seed)
    if strict and data.origin is not None:
        refuse(data.origin.problems, name)
    return data


def default_size(sizes: Sequence[tuple[int, int]]) -> int:
    """Return the training size for images of these (width, height): the largest of `SIZES` that most of them fill.

    Larger would store invented pixels. Beyond 224, which pretrained networks expect, time grows faster than accuracy.
    """
    usual = statistics.median(min(size) for size in sizes)
    return max([size for size in SIZES if size <= usual], default=SIZES[0])


def _list_path(path: Path, known: Sequence[str]) -> Listing:
    path = Path(os.path.abspath(path.expanduser()))
    name = short_name(path, known)
    if path.is_dir():
        return read_folder(path, name)
    if not path.exists():
        raise UsageError(
            f"{path}: no such folder or file",
            fix="name a folder of class folders, a CSV file with the columns path and label, or a data set",
        )
    if path.name.endswith((".txt", ".txt.gz")):
        return read_lists(path, name)
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_manifest(path, name)
    if path.suffix.lower() == ".json":
        return read_annotations(path, name)
    raise UsageError(
        f"{path}: neither a folder nor a list",
        fix="lists are .csv, .tsv, NAME_train.txt, or .json with annotations as COCO has them",
    )


def _look(listing: Listing, tell: Tell) -> tuple[list[Entry], Listing]:
    """Return the files that can be used, and the listing with the problems of all."""
    paths = [listing.full_path(item) for item in listing.items]
    memory = cache_root() / "files" / f"{hashlib.blake2b(os.fsencode(listing.source), digest_size=12).hexdigest()}.json"
    found = scan(paths, memory, tell)
    entries = [Entry(item, seen) for item, seen in zip(listing.items, found, strict=True)]
    problems = [Problem(e.item.path, e.seen.kind, e.seen.detail) for e in entries if e.seen.kind]
    useless = {problem.path for problem in problems if not problem.used}
    left = [entry for entry in entries if entry.item.path not in useless]
    if not left:
        raise LongtailError(
            f"{listing.source}: none of {len(entries)} files can be read; the first: {problems[0]}",
            fix=f"paths are taken relative to {listing.root}" if problems[0].kind == "missing" else "",
        )
    return left, replace(listing, problems=(*listing.problems, *problems))


def _split(entries: list[Entry], listing: Listing) -> tuple[list[Entry], Listing]:
    """Give every file a split where nothing said which."""
    if any(entry.item.split == "test" for entry in entries):
        return entries, listing
    # Only training files are shared out: a validation split that was named stays one.
    sharable = [k for k, entry in enumerate(entries) if entry.item.split in ("", "train")]
    chosen = choose_test([entries[k].seen.digest for k in sharable], [entries[k].item.label for k in sharable])
    split = {k: "test" if is_test else "train" for k, is_test in zip(sharable, chosen, strict=True)}
    entries = [
        replace(entry, item=entry.item._replace(split=split.get(k, entry.item.split)))
        for k, entry in enumerate(entries)
    ]
    note = (
        f"there is no test split: {sum(chosen)} of {len(chosen)} images are held out for testing, "
        f"{TEST_SHARE:.0%} of each class and at least one where a class has two; the choice depends on the files alone"
    )
    return entries, replace(listing, notes=(*listing.notes, note))


def _fingerprint(entries: Sequence[Entry]) -> str:
    """Return a digest of all contents with class and split: names, dates and folders do not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for entry in entries:
        digest.update(f"{entry.item.split}\0{entry.item.label}\0{entry.seen.digest}\n".encode())
    return digest.hexdigest()
