"""Data sets without their images: class sizes, shapes and black pixels. For plans and for measuring speed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from longtail.benchmark.grid import Source
from longtail.data import ImageSet, LongTailData, long_tail_counts

_CIFAR = {"cifar10": (10, 5000), "cifar100": (100, 500)}
_TEST_IMAGES = 10_000


def stand_in(source: Source) -> LongTailData:
    """Return data of the sizes that a source would give; CIFAR need not be there, other sets are loaded.

    Its images are black, its classes have numbers for names. A plan and the speed of training depend on none of that.

    Raises:
        LongtailError: The data set is not CIFAR and cannot be loaded.
    """
    if source.name not in _CIFAR:
        return source.load()
    classes, largest = _CIFAR[source.name]
    imbalance = 100.0 if source.imbalance is None else source.imbalance
    counts = long_tail_counts(largest - source.dev_per_class, classes, imbalance, source.profile)
    train = _black(torch.repeat_interleave(torch.arange(classes), torch.tensor(counts)))
    dev = torch.repeat_interleave(torch.arange(classes), source.dev_per_class)
    return LongTailData(
        name=source.name,
        train=train,
        test=_black(torch.repeat_interleave(torch.arange(classes), _TEST_IMAGES // classes)),
        class_names=tuple(map(str, range(classes))),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        dev=_black(dev) if source.dev_per_class else None,
        train_indices=torch.arange(len(train)),
        imbalance=imbalance,
        profile=source.profile,
        subset_seed=source.subset_seed,
    )


def _black(targets: Tensor) -> ImageSet:
    pixels = np.zeros((len(targets), 3, 32, 32), np.uint8)  # unlike torch's these take no memory until written to
    return ImageSet(torch.from_numpy(pixels), targets)


def noisy(data: LongTailData) -> LongTailData:
    """Return the data with random training images, since some processors are faster on zeros."""
    images = torch.randint(0, 256, data.train.images.shape, dtype=torch.uint8)
    return replace(data, train=ImageSet(images, data.train.targets))
