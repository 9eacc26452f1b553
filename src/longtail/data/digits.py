"""Handwritten digits, 8x8 and grey: the embedded data set that needs no download (from scikit-learn)."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from longtail.data.fullset import FullSet
from longtail.data.imageset import ImageSet

# Of all 1,797 images as uint8, in 0..1.
_MEAN, _STD = (0.3053,), (0.3759,)
_TEST_PER_CLASS = 50
_N_MAX = 120  # the smallest class has 174 images; 120 leaves room for a dev set beside the 50 test images
_SPLIT_SEED = 0


def read_digits() -> FullSet:
    """Read scikit-learn's digits (Alpaydin and Kaynak, 1998; 1,797 images of 10 classes).

    The 50 test images of each class are fixed: they depend on no seed of the caller. The 1,297 others are the full
    training set, in scikit-learn's order.
    """
    source = load_digits()
    pixels = np.rint(source.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = source.target.astype(np.int64)
    shuffled = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    chosen = [shuffled[labels[shuffled] == c][:_TEST_PER_CLASS] for c in range(10)]
    test = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(labels)), test)
    everything = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels))
    return FullSet(
        train=everything.subset(rest),
        test=everything.subset(test),
        class_names=tuple(str(digit) for digit in range(10)),
        mean=_MEAN,
        std=_STD,
        default_imbalance=50,
        n_max=_N_MAX,
    )
