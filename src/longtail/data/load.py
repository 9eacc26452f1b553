"""Load a data set by name and cut its long tail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from longtail.data.benchmarks import FILE_DATASETS
from longtail.data.cifar import read_cifar10, read_cifar100
from longtail.data.digits import read_digits
from longtail.data.fullset import FullSet
from longtail.data.imageset import ImageSet, LongTailData
from longtail.data.photos import is_path, load_photos
from longtail.data.scan import Tell, tell_nobody
from longtail.data.splits import (
    DEV_SEED,
    Indices,
    dev_split,
    long_tail_counts,
    long_tail_indices,
    longtail_da_indices,
)
from longtail.errors import LongtailError, UsageError, unknown_name

# Longtail_DA's own seed, as DEV_SEED; a caller's subset_seed is added, so that 0 gives the published split.
_DEV_SUBSET_SEED = 42

DATASETS: dict[str, Callable[[Path | None, bool], FullSet]] = {
    "digits": lambda root, download: read_digits(),
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
}


def load(
    name: str | os.PathLike[str],
    *,
    imbalance: float | None = None,
    profile: str = "exp",
    subset_seed: int = 0,
    root: str | os.PathLike[str] | None = None,
    dev_per_class: int = 0,
    download: bool = False,
    image_size: int | None = None,
    strict: bool = False,
    tell: Tell | None = None,
) -> LongTailData:
    """Load a data set by name and cut its training set to a long tail, or a person's own images as they are.

    Own images are a folder of class folders, a CSV manifest, list files or annotations as COCO has them (docs/data.md).
    They are decoded once, to a cache that later calls map into memory; ``LongTailData.origin`` says what was decided
    and what was wrong.

    Without a dev set the subset is LDAM-DRW's (`long_tail_indices`); ``subset_seed=0`` is the one of the papers. With a
    dev set both are Longtail_DA's (`dev_split`, then `longtail_da_indices` on the rest), again the published ones at
    ``subset_seed=0``, and the largest class is smaller by the dev images.

    Args:
        name: ``"digits"``, ``"cifar10"``, ``"cifar100"``; ``"imagenet-lt"``, ``"places-lt"``, ``"inat17"``,
            ``"inat18"``; or a path.
        imbalance: Largest over smallest class, at least 1; None takes the data set's default: digits 50, CIFAR 100.
            Images from files have their own, which is not cut.
        profile: ``"exp"`` or ``"step"``; see `long_tail_counts`. Images from files: ``"natural"``, whatever is given.
        subset_seed: Which images survive; not the seed of the training.
        root: Folder that holds the data sets; None takes ``LONGTAIL_DATA``, else ``./.data``.
        dev_per_class: Images per class of a balanced dev set, taken out before the tail is cut; 0 for none.
        download: Fetch the data set into ``root`` if it is not there.
        image_size: Side to which images from files are scaled; None: chosen from their own sizes, at most 224.
        strict: Whether any problem with a file is an error.
        tell: Hears how far reading and decoding are.

    Raises:
        UsageError: No name, an unknown name or profile, a seed or size out of range, or an imbalance or dev set that
            the classes cannot give.
        LongtailError: The data is missing, damaged, or cannot be downloaded; or, with ``strict``, has any problem.
    """
    if not isinstance(name, str | os.PathLike):
        raise UsageError(f"a data set is loaded by its name or path, got {type(name).__name__}")
    name = os.fsdecode(name)
    if not 0 <= subset_seed < 2**32 - _DEV_SUBSET_SEED:
        raise UsageError(f"subset_seed must be a whole number from 0 to about 4 billion, got {subset_seed!r}")
    if dev_per_class < 0:
        raise UsageError(f"dev_per_class must not be negative, got {dev_per_class}", fix="0 means no dev set")
    if name in FILE_DATASETS or (name not in DATASETS and is_path(name)):
        _check_uncut(name, imbalance, profile)
        return load_photos(
            name,
            root=root,
            dev_per_class=dev_per_class,
            image_size=image_size,
            strict=strict,
            subset_seed=subset_seed,
            known=tuple(DATASETS),
            tell=tell or tell_nobody,
        )
    if name not in DATASETS:
        error = unknown_name("data set", name, [*DATASETS, *FILE_DATASETS])
        raise UsageError(f"{error.message}, and no folder or file is called so", fix=error.fix)
    if image_size is not None:
        raise UsageError(f"{name} has images of one size; image_size is for images from files")
    full = DATASETS[name](None if root is None else Path(root), download)
    factor = full.default_imbalance if imbalance is None else imbalance
    dev, kept = _choose(name, full, factor, profile, subset_seed, dev_per_class)
    return LongTailData(
        name=name,
        train=full.train.subset(kept),
        test=full.test,
        class_names=full.class_names,
        mean=full.mean,
        std=full.std,
        dev=dev,
        train_indices=torch.from_numpy(kept),
        imbalance=float(factor),
        profile=profile,
        subset_seed=subset_seed,
    )


def _check_uncut(name: str, imbalance: float | None, profile: str) -> None:
    """Refuse to cut images from files; ``natural`` with a number is what a run folder says of them."""
    if (imbalance is not None and profile != "natural") or profile == "step":
        raise UsageError(
            f"{name} is taken with the imbalance that it has; --imbalance and --profile cut a long tail from "
            f"{', '.join(DATASETS)} only",
            fix="leave them out, or list the images to use in a CSV manifest",
        )


def _choose(
    name: str, full: FullSet, imbalance: float, profile: str, seed: int, dev_per_class: int
) -> tuple[ImageSet | None, Indices]:
    """The dev set, if any, and the positions of the long-tailed training images."""
    targets, num_classes = full.train.targets.numpy(), len(full.class_names)
    available = np.bincount(targets, minlength=num_classes)
    if available.min() == 0:
        missing = int(available.argmin())
        raise LongtailError(f"{name}: class {missing} ({full.class_names[missing]}) has no training image")
    if not dev_per_class:
        return None, long_tail_indices(targets, _counts(full, available, imbalance, profile), seed)
    dev, rest = dev_split(targets, num_classes, dev_per_class, DEV_SEED + seed, full.class_names)
    counts = _counts(full, available - dev_per_class, imbalance, profile)
    kept = longtail_da_indices(targets[rest], counts, _DEV_SUBSET_SEED + seed)
    return full.train.subset(dev), rest[kept]


def _counts(full: FullSet, available: np.ndarray, imbalance: float, profile: str) -> list[int]:
    smallest = int(available.min())
    n_max = smallest if full.n_max is None else min(full.n_max, smallest)
    return long_tail_counts(n_max, len(available), imbalance, profile)
