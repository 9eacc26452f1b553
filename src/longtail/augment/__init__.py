"""Augmentation: batched tensor operations with per-image randomness from an explicit generator."""

from longtail.augment.geometry import Cutout, RandomCrop, RandomFlip, RandomRotation
from longtail.augment.mixup import Mixing, Mixup
from longtail.augment.transforms import Compose, Normalize, Transform

__all__ = [
    "Compose",
    "Cutout",
    "Mixing",
    "Mixup",
    "Normalize",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "Transform",
]
