"""From files and their decoded cache to a `LongTailData`: classes numbered, rows shared out, problems gathered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from longtail.data.cache import Cache, Rows
from longtail.data.imageset import ImageSet, LongTailData
from longtail.data.listing import SPLITS, Item, Listing
from longtail.data.origin import FileFacts, Origin
from longtail.data.problems import Problem, printable
from longtail.data.scan import Seen
from longtail.data.splits import DEV_SEED, dev_split
from longtail.errors import LongtailError, UsageError

# Those of ImageNet, which pretrained networks expect; for others they do as well as any.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Entry:
    """A file that can be used, and what is known of it."""

    item: Item
    seen: Seen

    @property
    def facts(self) -> FileFacts:
        """The part that reports need."""
        seen = self.seen
        return FileFacts(self.item.path, seen.digest, seen.width, seen.height, seen.mode, seen.format)


def assemble(
    listing: Listing, entries: Sequence[Entry], cache: Cache, fingerprint: str, dev_per_class: int, subset_seed: int
) -> LongTailData:
    """Make the data set.

    Args:
        listing: Classes, notes and the problems so far.
        entries: The files in the order in which the cache was made; each has a split.
        cache: Their pixels.
        fingerprint: Of their contents.
        dev_per_class: Images per class of a development set: from the validation split where there is one.
        subset_seed: Which images that set takes.

    Raises:
        UsageError: The classes cannot give that many images.
        LongtailError: Less than two classes have readable training images, or no test image is readable.
    """
    kept = [entries[k] for k in cache.decoded.tolist()]
    trained = {entry.item.label for entry in kept if entry.item.split == "train"}
    classes = tuple(name for name in listing.classes if name in trained)
    problems = (
        *listing.problems,
        *(Problem(entries[k].item.path, *problem) for k, problem in cache.damaged.items()),
    )
    if len(classes) < 2:
        told = f"{len(classes)} class" + ("es have" if len(classes) != 1 else " has")
        why = _why_empty(listing, trained, problems)
        raise LongtailError(f"{listing.source}: {told} readable training images; two are needed{why}")
    number = {name: k for k, name in enumerate(classes)}
    labels = np.array([number.get(entry.item.label, -1) for entry in kept], dtype=np.int64)
    parts = np.array([SPLITS.index(entry.item.split) for entry in kept])
    train, val, test = (np.flatnonzero((parts == k) & (labels >= 0)) for k in range(len(SPLITS)))
    if not len(test):
        raise LongtailError(
            f"{listing.source}: no class has an image to spare for testing", fix="one class at least needs two images"
        )
    dev, train = _dev_set(train, val, labels, classes, dev_per_class, subset_seed)
    images = cache.images()

    def part(rows: Rows) -> ImageSet:
        return ImageSet(cache.subset(images, rows), torch.from_numpy(labels[rows]))

    counts = np.bincount(labels[train], minlength=len(classes))
    return LongTailData(
        name=listing.name,
        train=part(train),
        test=part(test),
        class_names=classes,
        mean=_MEAN,
        std=_STD,
        dev=None if dev is None else part(dev),
        train_indices=torch.arange(len(train)),
        imbalance=float(counts.max() / counts.min()),
        profile="natural",
        origin=Origin(
            path=str(listing.source),
            fingerprint=fingerprint,
            image_size=cache.size,
            cache=str(cache.folder),
            notes=listing.notes,
            problems=(*problems, *_class_problems(listing.classes, classes, counts, labels[test])),
            files={
                name: tuple(kept[row].facts for row in rows.tolist())
                for name, rows in (("train", train), ("test", test))
            },
        ),
        subset_seed=subset_seed,
    )


def _why_empty(listing: Listing, trained: Collection[str], problems: Sequence[Problem]) -> str:
    """Say of the first class without readable training images what was wrong with its first file."""
    empty = next((name for name in listing.classes if name not in trained), None)
    if empty is None:
        return ""
    own = {item.path for item in listing.items if item.label == empty}
    first = next((problem for problem in problems if problem.path in own and not problem.used), None)
    return f"; '{printable(empty)}' has none" + ("" if first is None else f", its first problem is {first}")


def _dev_set(
    train: Rows, val: Rows, labels: Rows, classes: Sequence[str], per_class: int, seed: int
) -> tuple[Rows | None, Rows]:
    """Return the rows of the development set, and of the training set without them."""
    if not per_class:
        return None, train
    if not len(val):
        dev, rest = dev_split(labels[train], len(classes), per_class, DEV_SEED + seed, classes)
        return train[dev], train[rest]
    shuffled = val[np.random.RandomState(DEV_SEED + seed).permutation(len(val))]
    members = [shuffled[labels[shuffled] == c][:per_class] for c in range(len(classes))]
    short = [c for c, rows in enumerate(members) if len(rows) < per_class]
    if short:
        raise UsageError(
            f"class {classes[short[0]]!r} has {len(members[short[0]])} validation images, {per_class} are needed",
            fix="ask for fewer images per class",
        )
    return np.sort(np.concatenate(members)), train


def _class_problems(listed: Sequence[str], used: Sequence[str], counts: Rows, test_labels: Rows) -> list[Problem]:
    left_out = set(listed) - set(used)
    empty = [Problem(name, "empty class", "no readable training image") for name in listed if name in left_out]
    tested = np.bincount(test_labels, minlength=len(used))
    return empty + [
        Problem(name, "no test image", f"{count} for training")
        for name, count, tests in zip(used, counts, tested, strict=True)
        if not tests
    ]
