"""What can be known of a data set before training: its long tail, its files, doubles, and labels that look wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.data import LongTailData
from longtail.data.problems import printable
from longtail.evaluation.shots import shot_groups
from longtail.report.inspect_advice import advice
from longtail.report.inspect_images import Gallery, duplicates, suspects


def inspect(data: LongTailData, features: NDArray[np.float32] | None = None, *, named: str = "") -> dict[str, Any]:
    """Inspect a data set; ready for JSON.

    Args:
        data: The data set.
        features: Features of a trained network for the training images and, after them, the test images, (N, d), for
            the search for wrong labels; None: thumbnails.
        named: How the data set was named, for the commands; None: its name.

    Returns:
        - ``dataset``, ``train_images``, ``test_images``, ``image_shape``, and for images from files ``source``,
          ``fingerprint``, ``cache`` and ``notes``;
        - ``classes``: name, training and test images of each;
        - ``imbalance``, ``effective_classes`` (exponential of the class distribution's entropy: the number of equally
          large classes that would be as diverse), ``groups`` (classes and training images of many, medium and few);
        - ``files``: formats, colour modes, and smallest, median and largest width and height; None without files;
        - ``problems``: path, kind, detail, and whether it is used;
        - ``duplicates`` and ``suspects``: see `longtail.report.inspect_images`;
        - ``advice``: what to try, why, and the command.
    """
    gallery = Gallery.of(data)
    result = {
        "dataset": data.name,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "image_shape": list(data.image_shape),
        **_origin(data),
        **profile(data),
        "files": _files(data),
        "duplicates": duplicates(gallery),
        "suspects": suspects(gallery, features),
    }
    return {**result, "advice": advice(result, named or data.name)}


def profile(data: LongTailData) -> dict[str, Any]:
    """Return the long tail in numbers: the classes and ``imbalance``, ``effective_classes`` and ``groups``."""
    counts = np.array(data.class_counts)
    tests = np.bincount(data.test.targets.numpy(), minlength=data.num_classes)
    shares = counts[counts > 0] / counts.sum()
    return {
        "classes": [
            {"name": printable(name), "train": int(train), "test": int(test)}
            for name, train, test in zip(data.class_names, counts, tests, strict=True)
        ],
        "imbalance": float(counts.max() / counts.min()) if counts.min() else None,
        "effective_classes": float(np.exp(-(shares * np.log(shares)).sum())),
        "groups": {
            name: {"classes": len(members), "train": int(counts[members].sum())}
            for name, members in shot_groups(counts).items()
        },
    }


def _origin(data: LongTailData) -> dict[str, Any]:
    origin = data.origin
    if origin is None:
        return {"source": None, "fingerprint": None, "cache": None, "notes": [], "problems": []}
    return {
        "source": printable(origin.path),
        "fingerprint": origin.fingerprint,
        "cache": origin.cache,
        "notes": list(origin.notes),
        "problems": [
            {"path": printable(p.path), "kind": p.kind, "detail": printable(p.detail), "used": p.used}
            for p in origin.problems
        ],
    }


def _files(data: LongTailData) -> dict[str, Any] | None:
    if data.origin is None:
        return None
    files = [file for part in data.origin.files.values() for file in part]
    spans = {}
    for side in ("width", "height"):
        values = [getattr(file, side) for file in files]
        spans[side] = {"smallest": min(values), "median": float(np.median(values)), "largest": max(values)}
    return {
        "formats": dict(Counter(file.format for file in files).most_common()),
        "modes": dict(Counter(file.mode for file in files).most_common()),
        **spans,
    }
