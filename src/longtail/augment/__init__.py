"""Augmentation: batched tensor operations with per-image randomness from an explicit generator."""

from longtail.augment.autoaugment import AutoAugment
from longtail.augment.cmo import CMO
from longtail.augment.color import ColorJitter
from longtail.augment.cutmix import CutMix
from longtail.augment.geometry import Cutout, RandomCrop, RandomFlip, RandomRotation
from longtail.augment.mixup import Mixing, Mixup
from longtail.augment.photo import CentreCrop, RandomResizedCrop
from longtail.augment.quarter_turns import quarter_turns
from longtail.augment.randaugment import RandAugment
from longtail.augment.remix import Remix
from longtail.augment.sometimes import Grey, Sometimes
from longtail.augment.transforms import Compose, Normalize, Transform
from longtail.types import Batch, Progress

__all__ = [
    "CMO",
    "AutoAugment",
    "Batch",
    "CentreCrop",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Cutout",
    "Grey",
    "Mixing",
    "Mixup",
    "Normalize",
    "Progress",
    "RandAugment",
    "RandomCrop",
    "RandomFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "Remix",
    "Sometimes",
    "Transform",
    "quarter_turns",
]
