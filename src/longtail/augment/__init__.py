"""Augmentation: batched tensor operations with per-image randomness from an explicit generator."""

from longtail.augment.cmo import CMO
from longtail.augment.cutmix import CutMix
from longtail.augment.geometry import Cutout, RandomCrop, RandomFlip, RandomRotation
from longtail.augment.mixup import Mixing, Mixup
from longtail.augment.remix import Remix
from longtail.augment.transforms import Compose, Normalize, Transform

__all__ = [
    "CMO",
    "Compose",
    "CutMix",
    "Cutout",
    "Mixing",
    "Mixup",
    "Normalize",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "Remix",
    "Transform",
]
