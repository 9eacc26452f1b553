"""Doubles and labels that look wrong, from thumbnails: a first look, whose limits are part of the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from longtail.data import LongTailData
from longtail.data.problems import printable

NEIGHBOURS = 10
COMPARED = 30_000
"""Most images that are compared pair by pair."""

_SIDE = 16
_SAME = 0.998  # cosine of two thumbnails of one picture, stored twice with different compression or size
_FLAT = 4.0  # grey levels of deviation below which a thumbnail shows nothing to compare
_AGREED = 0.7  # share of the neighbours that must agree on another class
_EXCUSED = 1  # neighbours of its own class that do not speak for it: the same mistake may be made twice
_TRUSTED = 0.5  # balanced accuracy that the neighbours must reach before their opinion is told
_BLOCK = 1024


@dataclass(frozen=True)
class Gallery:
    """All images of a data set, training before test.

    Attributes:
        parts: The images, (N, C, H, W), one tensor a split.
        labels: Their classes, (N,).
        is_test: Whether each is a test image, (N,).
        names: What each is called: its path, or ``train 12``.
        digests: Digest of each file, or of its pixels.
        class_names: Names of the classes.
    """

    parts: tuple[Tensor, ...]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    names: Sequence[str]
    digests: Sequence[str]
    class_names: Sequence[str]

    @classmethod
    def of(cls, data: LongTailData) -> Gallery:
        """Return the gallery of a data set."""
        sets = {"train": data.train, "test": data.test}
        if data.origin is None:
            names = [f"{split} {k}" for split, images in sets.items() for k in range(len(images))]
            digests = [_digest(image) for images in sets.values() for image in images.images]
        else:
            files = [file for split in sets for file in data.origin.files[split]]
            names, digests = [printable(file.path) for file in files], [file.digest for file in files]
        return cls(
            parts=tuple(images.images for images in sets.values()),
            labels=np.concatenate([images.targets.numpy() for images in sets.values()]),
            is_test=np.repeat([False, True], [len(data.train), len(data.test)]),
            names=names,
            digests=digests,
            class_names=[printable(name) for name in data.class_names],
        )

    def describe(self, k: int) -> dict[str, Any]:
        """Return an image's name, class and split."""
        split = "test" if self.is_test[k] else "train"
        return {"name": self.names[k], "class": self.class_names[self.labels[k]], "split": split}

    @cached_property
    def thumbnails(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return small pictures with mean 0 and length 1, (N, d), and whether there is anything to see in each."""
        small, shown = [], []
        for part in self.parts:
            for block in torch.split(part, _BLOCK // 4):
                side = min(_SIDE, *block.shape[2:])
                flat = F.adaptive_avg_pool2d(block.float(), side).flatten(1)
                flat = flat - flat.mean(1, keepdim=True)
                shown.append(flat.std(1) > _FLAT)
                small.append(F.normalize(flat, dim=1))
        return torch.cat(small).numpy(), torch.cat(shown).numpy()


def _digest(image: Tensor) -> str:
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).hexdigest()


def duplicates(gallery: Gallery) -> dict[str, Any]:
    """Find pictures that are there more than once.

    Identical files (or pixels, for images that are not files) are found always; near ones, the same picture with other
    compression or size, by comparing thumbnails, among at most `COMPARED` images. Mirrored or cropped ones are not.

    Returns:
        ``identical`` and ``near``: groups of images, each with what is bad about it: ``across_splits`` (in training and
        test: the test then measures memory) and ``across_classes``. ``compared``: number of thumbnails compared.
    """
    groups: dict[str, list[int]] = {}
    for k, digest in enumerate(gallery.digests):
        groups.setdefault(digest, []).append(k)
    identical = [group for group in groups.values() if len(group) > 1]
    chosen = np.sort(np.array([group[0] for group in groups.values()]))
    chosen = _thinned(chosen, gallery.labels, COMPARED)
    small, shown = gallery.thumbnails
    chosen = chosen[shown[chosen]]
    near = [chosen[group] for group in _alike(small[chosen], _SAME)]
    return {
        "identical": [_told(gallery, group) for group in identical],
        "near": [_told(gallery, group) for group in near],
        "compared": len(chosen),
    }


def _told(gallery: Gallery, group: Iterable[int]) -> dict[str, Any]:
    return {
        "images": [gallery.describe(k) for k in group],
        "across_splits": len({bool(gallery.is_test[k]) for k in group}) > 1,
        "across_classes": len({int(gallery.labels[k]) for k in group}) > 1,
    }


def suspects(gallery: Gallery, features: NDArray[np.float32] | None = None) -> dict[str, Any]:
    """Find labels that look wrong: images whose neighbours agree on another class, and hardly one is of their own.

    Neighbours are the ten most alike (cosine) among at most `COMPARED` images, the large classes thinned to the median
    size so that they do not outvote the rest. Not judged: classes with ten images or fewer, and everything where the
    neighbours name the right class of less than half of the images (mean over classes): then they know too little.

    Args:
        gallery: The images.
        features: Features of a trained network, (N, d); None: thumbnails, which see colour and layout, not objects.

    Returns:
        ``images``: the suspects, most certain first, each with ``looks_like`` and ``agreement``; ``judged``: number of
        images; ``accuracy``: of the neighbours, in percent, None where no class is large enough; ``by``.
    """
    by = "thumbnails" if features is None else "features"
    seen = gallery.thumbnails[0] if features is None else features / np.linalg.norm(features, axis=1, keepdims=True)
    counts = np.bincount(gallery.labels, minlength=len(gallery.class_names))
    usual = int(np.median(counts[counts > 0]))
    pool = _thinned(np.arange(len(seen)), gallery.labels, COMPARED, most=max(usual, 5 * NEIGHBOURS))
    judged = np.flatnonzero(counts[gallery.labels] > NEIGHBOURS)
    judged = _thinned(judged, gallery.labels, COMPARED)
    votes = _votes(seen, judged, pool, gallery.labels, len(counts))
    own = gallery.labels[judged]
    winner = votes.argmax(1)
    accuracy = [float((winner[own == c] == c).mean()) for c in np.unique(own)]
    trusted = bool(accuracy) and float(np.mean(accuracy)) >= _TRUSTED
    agreement = votes.max(1, initial=0) / NEIGHBOURS
    odd = (votes[np.arange(len(judged)), own] <= _EXCUSED) & (agreement >= _AGREED)
    found = np.flatnonzero(odd & trusted)
    ranked = sorted(map(int, found), key=lambda k: (-agreement[k], judged[k]))
    return {
        "images": [
            {
                **gallery.describe(int(judged[k])),
                "looks_like": gallery.class_names[winner[k]],
                "agreement": float(agreement[k]),
            }
            for k in ranked
        ],
        "judged": len(judged) if trusted else 0,
        "accuracy": 100 * float(np.mean(accuracy)) if accuracy else None,
        "by": by,
    }


def _thinned(chosen: NDArray[np.int64], labels: NDArray[np.int64], total: int, most: int = 0) -> NDArray[np.int64]:
    """Keep at most ``most`` images of each class (0: any number) and at most ``total``, the large classes thinned."""
    generator = np.random.default_rng(0)
    members = [generator.permutation(chosen[labels[chosen] == c]) for c in np.unique(labels[chosen])]
    limit = most or len(chosen)
    while limit > 1 and sum(min(limit, len(rows)) for rows in members) > total:
        limit = int(limit * 0.9)
    return np.sort(np.concatenate([rows[:limit] for rows in members])) if members else chosen


def _alike(seen: NDArray[np.float32], least: float) -> list[NDArray[np.int64]]:
    """Return the groups of two rows or more that hang together by pairs with a cosine of at least ``least``.

    Groups are joined while the pairs are found: a thousand frames of a camera that stands still are half a million
    pairs, which are never listed.

    Args:
        seen: Rows of length 1, (N, d).
        least: The cosine.

    Returns:
        Row numbers, ascending in each group; groups in the order of their first rows.
    """
    rows = torch.from_numpy(seen)
    home = np.arange(len(rows))  # the first row of the group that each row belongs to
    for start in range(0, len(rows), _BLOCK):
        close = (rows[start : start + _BLOCK] @ rows[start:].T >= least).numpy()
        for k in np.flatnonzero(close.sum(1) > 1):
            met = home[start + np.flatnonzero(close[k])]
            if (met != met[0]).any():
                home[np.isin(home, met)] = met.min()
    order = np.argsort(home, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(home[order])) + 1)
    return [group for group in groups if len(group) > 1]


def _votes(
    seen: NDArray[np.float32],
    asked: NDArray[np.int64],
    pool: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: int,
) -> NDArray[np.int64]:
    """Count the classes of the nearest neighbours in the pool of each image asked about, itself left out: (A, C)."""
    known = torch.from_numpy(seen[pool])
    place = np.full(len(seen), -1)
    place[pool] = np.arange(len(pool))
    votes = np.zeros((len(asked), classes), dtype=np.int64)
    for start in range(0, len(asked), _BLOCK):
        some = asked[start : start + _BLOCK]
        alike = torch.from_numpy(seen[some]) @ known.T
        inside = np.flatnonzero(place[some] >= 0)
        alike[inside, place[some][inside]] = -torch.inf
        nearest = pool[alike.topk(min(NEIGHBOURS, len(pool) - 1), dim=1).indices.numpy()]
        rows = np.repeat(np.arange(start, start + len(some)), nearest.shape[1])
        np.add.at(votes, (rows, labels[nearest].ravel()), 1)
    return votes
