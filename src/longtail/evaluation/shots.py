"""Many-, medium- and few-shot groups of classes, by the three conventions in the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

ShotRule = Literal["kang", "oltr", "mislas"]
GROUPS = ("many", "medium", "few")

_MISLAS_BORDERS = {365: (131, 288), 1000: (390, 835), 8142: (842, 4543)}
"""Where the medium and the few group begin for Places-LT, ImageNet-LT and iNaturalist 2018."""


def shot_groups(class_counts: Sequence[int] | ArrayLike, rule: ShotRule = "kang") -> dict[str, NDArray[np.int64]]:
    """Divide the classes into many, medium and few by their number of training images.

    Args:
        class_counts: Training images of each class, (C,).
        rule: ``"kang"`` (the default; Kang et al., RIDE and most papers): many > 100, medium 20..100, few < 20.
            ``"oltr"`` (Liu et al., CVPR 2019): many >= 100, few <= 20. ``"mislas"`` (Zhong et al., CVPR 2021; H2T):
            fixed numbers of classes after sorting by count, 36/35/29 for CIFAR-100, 3/4/3 for CIFAR-10 and the like
            proportions for sizes that MiSLAS does not list. Their numbers are not comparable.

    Returns:
        Class indices of ``"many"``, ``"medium"`` and ``"few"``, ascending; empty where there are none.

    Raises:
        ValueError: For an unknown rule or counts that are not a list of numbers >= 0.

    Source: github.com/facebookresearch/classifier-balancing, utils.py; github.com/zhmiao/OpenLongTailRecognition-OLTR,
        utils.py; github.com/dvlab-research/MiSLAS, config files.
    """
    counts = np.asarray(class_counts)
    if counts.ndim != 1 or len(counts) == 0 or (counts < 0).any():
        raise ValueError(
            f"shot_groups: class_counts must be a non-empty list of counts >= 0, got shape {counts.shape}, {counts!r}"
        )
    if rule == "kang":
        many, few = counts > 100, counts < 20
    elif rule == "oltr":
        many, few = counts >= 100, counts <= 20
    elif rule == "mislas":
        # Rank 0 is the largest class; equal counts rank in label order.
        rank = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
        first_medium, first_few = _mislas_borders(len(counts))
        many, few = rank < first_medium, rank >= first_few
    else:
        raise ValueError(f"shot_groups: rule must be one of {', '.join(get_args(ShotRule))}, got {rule!r}")
    masks = (many, ~many & ~few, few)
    return {name: np.flatnonzero(mask) for name, mask in zip(GROUPS, masks, strict=True)}


def _mislas_borders(num_classes: int) -> tuple[int, int]:
    proportional = (math.floor(0.36 * num_classes), math.floor(0.71 * num_classes))
    return _MISLAS_BORDERS.get(num_classes, proportional)
