"""Photographs: budgets, backbones, sizes and augmentation of folders of images and of the large benchmarks.

The published budgets are those of the decoupling code (Kang et al., ICLR 2020), which most later papers start from.
"""

from __future__ import annotations

from typing import Any, Literal

from longtail.augment import (
    CentreCrop,
    ColorJitter,
    Compose,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Transform,
)
from longtail.errors import UsageError

Start = Literal["scratch", "pretrained", "frozen"]
"""What a run begins with: fresh weights, pretrained ones, or features that stay as they are."""

SMALL = 64
"""Images with shorter sides than this train as CIFAR's do: a network of 32-fold reduction leaves nothing of them."""

INATURALIST = ("inat17", "inat18")
"""Trained alike, and without colour jitter."""

_COSINE: dict[str, Any] = {"schedule": "cosine", "milestones": (), "decay": ()}
_OWN: dict[str, Any] = {**_COSINE, "nesterov": True}
_KANG: dict[str, Any] = {**_COSINE, "epochs": 90, "batch_size": 512, "lr": 0.2, "warmup": 0}

COMMON: dict[Start, dict[str, Any]] = {
    "scratch": {**_OWN, "epochs": 100, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-4, "warmup": 5},
    "pretrained": {**_OWN, "epochs": 30, "batch_size": 64, "lr": 0.01, "weight_decay": 1e-4, "warmup": 2},
    "frozen": {**_OWN, "epochs": 100, "batch_size": 128, "lr": 0.05, "weight_decay": 5e-4, "warmup": 0},
}
QUICK: dict[Start, dict[str, Any]] = {
    "scratch": {**COMMON["scratch"], "epochs": 30, "batch_size": 64, "lr": 0.05, "warmup": 2},
    "pretrained": {**COMMON["pretrained"], "epochs": 8, "warmup": 1},
    "frozen": {**COMMON["frozen"], "epochs": 30},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "imagenet-lt": {**_KANG, "weight_decay": 5e-4},
    **{name: {**_KANG, "weight_decay": 1e-4} for name in INATURALIST},
}
BACKBONES = {"imagenet-lt": "resnext50", **dict.fromkeys(INATURALIST, "resnet50"), "places-lt": "resnet152"}
_LARGEST_SHARE = 4


def fields_for(dataset: str, protocol: str, start: Start) -> dict[str, Any]:
    """Return the budget's fields on photographs.

    Raises:
        UsageError: The data set has no published protocol.
    """
    if protocol != "published":
        return (COMMON if protocol == "common" else QUICK)[start]
    if dataset == "places-lt":
        raise UsageError(
            "the published protocol of places-lt trains the last block of a pretrained ResNet-152 alone, which is not "
            "built here",
            fix="use --protocol common, best with --weights imagenet",
        )
    if dataset not in PUBLISHED:
        raise UsageError(
            f"no published protocol for {dataset}: nobody published numbers on it",
            fix="use --protocol common or quick",
        )
    return PUBLISHED[dataset]


def batch_for(usual: int, images: int) -> int:
    """Return the batch size for a set of so many images: the usual one, or the power of two that fits four times."""
    largest = max(images // _LARGEST_SHARE, 2)
    return usual if usual <= largest else 1 << (largest.bit_length() - 1)


def backbone_for(dataset: str, side: int) -> str:
    """Return the backbone of the papers; for a person's own images ResNet-18, for small ones CIFAR's ResNet-32."""
    return BACKBONES.get(dataset, "resnet18" if side >= SMALL else "resnet32")


def usual_crop(side: int) -> int:
    """Return the side that the network sees of images with a shorter side stored: 224 of the papers' 256, else all."""
    return 224 if side == 256 else side


def training_transforms(dataset: str, crop: int, normalize: Normalize) -> Compose:
    """Return the training transforms: those of ImageNet-LT, without jitter on iNaturalist; CIFAR's for small images.

    Args:
        dataset: Name of the data set.
        crop: Side that the network sees.
        normalize: The last step.
    """
    if crop < SMALL:
        # Where larger images are stored, the middle of the shifted ones; where not, all of them.
        return Compose((RandomCrop(padding=max(crop // 8, 1)), RandomFlip(), CentreCrop(crop), normalize))
    jitter: tuple[Transform, ...] = () if dataset in INATURALIST else (ColorJitter(0.4, 0.4, 0.4),)
    return Compose((RandomResizedCrop(crop), RandomFlip(), *jitter, normalize))


def test_transforms(crop: int | None, normalize: Normalize) -> Compose:
    """Return the test-time transforms: the centre where the network sees less than is stored, then normalisation."""
    return Compose((normalize,) if crop is None else (CentreCrop(crop), normalize))
