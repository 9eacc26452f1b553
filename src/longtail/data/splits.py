"""Which images survive: class counts of a long tail, the subset that has them, and balanced dev splits.

Two published conventions are kept to the bit, because they decide which images a method sees: the subsets of LDAM-DRW
(shared by RIDE, BBN, MiSLAS, VS and others), and the dev split with its subset of Longtail_DA (shared by MetaSAug).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from longtail.errors import UsageError

PROFILES = ("exp", "step")
DEV_SEED = 6
"""Longtail_DA's seed of the dev split."""

Indices = npt.NDArray[np.int64]
Targets = Sequence[int] | npt.NDArray[np.integer] | Tensor


def long_tail_counts(n_max: int, num_classes: int, imbalance: float, profile: str = "exp") -> list[int]:
    """Count the images that each class keeps in a long tail (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019).

    Class 0 is the head, the last class the tail. ``"exp"``: ``floor(n_max * mu ** (i / (C - 1)))`` with
    ``mu = 1 / imbalance``. ``"step"``: the first half of the classes keeps ``n_max`` images, the other half
    ``floor(n_max * mu)``; with an odd C the class in the middle belongs to the head.

    Args:
        n_max: Images of the largest class; 500 for CIFAR-100, 5,000 for CIFAR-10.
        num_classes: Number of classes C.
        imbalance: Largest over smallest class, at least 1; the papers use 10, 50, 100 and 200.
        profile: ``"exp"`` or ``"step"``.

    Returns:
        Images per class, length C, all at least 1.

    Raises:
        UsageError: ``imbalance`` is below 1 or so high that classes lose their last image; or the profile is unknown.
        ValueError: ``n_max`` or ``num_classes`` is below 1.
    """
    if n_max < 1 or num_classes < 1:
        raise ValueError(f"long_tail_counts: n_max and num_classes must be at least 1, got {n_max} and {num_classes}")
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}", fix=f"known: {', '.join(PROFILES)}")
    if not (math.isfinite(imbalance) and imbalance >= 1):
        raise UsageError(
            f"imbalance must be a finite number of at least 1, got {imbalance!r}",
            fix="it is the largest class over the smallest, for example 100; 1 keeps the set balanced",
        )
    mu = 1 / imbalance
    if profile == "step":
        head = (num_classes + 1) // 2
        counts = [n_max] * head + [int(n_max * mu)] * (num_classes - head)
    else:
        # Written as in the papers' code: exp/log, or powers of a stored ratio, would lose one image to rounding.
        counts = [int(n_max * mu ** (i / max(1, num_classes - 1))) for i in range(num_classes)]
    empty = [i for i, count in enumerate(counts) if count == 0]
    if empty:
        raise UsageError(
            f"imbalance {imbalance:g} leaves no image for {len(empty)} of {num_classes} classes "
            f"({_span(empty)}): the largest has {n_max}",
            fix=f"use an imbalance below {n_max}",
        )
    return counts


def long_tail_indices(targets: Targets, counts: Sequence[int], seed: int = 0) -> Indices:
    """Draw the long-tailed subset of LDAM-DRW (Cao et al., NeurIPS 2019), bit for bit.

    One stream of numpy's legacy generator shuffles each class's images in turn, and the first ``counts[c]`` survive.

    Args:
        targets: Class of each image of the full set, (N,).
        counts: Images to keep per class, length C.
        seed: Seed of the subset; the papers use 0. It is not the seed of the training.

    Returns:
        Positions in the full set, int64, class after class, in drawn order.

    Raises:
        UsageError: A class has fewer images than ``counts`` asks for.

    Source: kaidic/LDAM-DRW, imbalance_cifar.py.
    """
    generator = np.random.RandomState(seed)
    kept = []
    for members, count in zip(_members(targets, counts), counts, strict=True):
        generator.shuffle(members)
        kept.append(members[:count])
    return np.concatenate(kept)


def longtail_da_indices(targets: Targets, counts: Sequence[int], seed: int = 42) -> Indices:
    """Draw the long-tailed subset of Longtail_DA (Jamal et al., CVPR 2020), bit for bit.

    As `long_tail_indices`, but Python's generator shuffles, and the survivors stay in the set's order.

    Args:
        targets: Class of each image of the set without the dev images, (N,).
        counts: Images to keep per class, length C.
        seed: Seed of the subset; the paper's code uses 42.

    Returns:
        Positions in the set that was given, int64, ascending.

    Raises:
        UsageError: A class has fewer images than ``counts`` asks for.

    Source: abdullahjamal/Longtail_DA, data_utils.py and the CIFAR script.
    """
    generator = random.Random(seed)
    kept = []
    for members, count in zip(_members(targets, counts), counts, strict=True):
        shuffled = members.tolist()
        generator.shuffle(shuffled)
        kept.append(np.asarray(shuffled[:count], dtype=np.int64))
    return np.sort(np.concatenate(kept))


def dev_split(
    targets: Targets, num_classes: int, per_class: int = 10, seed: int = DEV_SEED, class_names: Sequence[str] = ()
) -> tuple[Indices, Indices]:
    """Take a balanced dev set out of the full set (Jamal et al., CVPR 2020), bit for bit.

    It is taken before the long tail is cut, so a tail class has images here that the training set never sees.

    Args:
        targets: Class of each image of the full set, (N,).
        num_classes: Number of classes C.
        per_class: Dev images per class; the paper uses 10 on CIFAR.
        seed: Seed of the split; the paper's code uses 6.
        class_names: Their names, for errors; without them these have the numbers.

    Returns:
        Positions of the dev images and of all others, int64, both ascending.

    Raises:
        UsageError: A class has no image left beside its dev images.

    Source: abdullahjamal/Longtail_DA, data_utils.py.
    """
    if per_class < 1:
        raise UsageError(f"the dev set must have at least 1 image per class, got {per_class}")
    generator = np.random.RandomState(seed)
    chosen = []
    for members in _members(targets, [per_class + 1] * num_classes, class_names):
        generator.shuffle(members)
        chosen.append(members[:per_class])
    dev = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(targets), dtype=np.int64), dev, assume_unique=True)
    return dev, rest


def _members(targets: Targets, needed: Sequence[int], class_names: Sequence[str] = ()) -> list[Indices]:
    """Positions of each class's images, ascending; an error where a class has fewer than needed."""
    labels = np.asarray(targets)
    members = [np.flatnonzero(labels == c).astype(np.int64) for c in range(len(needed))]
    short = [c for c, (found, need) in enumerate(zip(members, needed, strict=True)) if len(found) < need]
    if short:
        c = short[0]
        raise UsageError(
            f"class {repr(class_names[c]) if class_names else c} has {len(members[c])} images, {needed[c]} are needed"
            + (f" (and {len(short) - 1} more)" if len(short) > 1 else ""),
            fix="ask for fewer images per class",
        )
    return members


def _span(classes: Sequence[int]) -> str:
    """The classes in words; the empty ones of a long tail are always neighbours."""
    return f"class {classes[0]}" if len(classes) == 1 else f"classes {classes[0]} to {classes[-1]}"
