"""The two records that hold images: a set, and a long-tailed training set with its balanced test set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from longtail.data.origin import Origin


@dataclass(frozen=True)
class ImageSet:
    """Images in memory with one class each.

    Attributes:
        images: Pixels, (N, C, H, W), uint8, contiguous.
        targets: Class of each image, (N,), int64, none negative.

    Raises:
        ValueError: A tensor has the wrong type or shape, the lengths differ, or a class is negative.
    """

    images: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            seen = f"{self.images.dtype} of shape {tuple(self.images.shape)}"
            raise ValueError(f"ImageSet: images must be uint8 of shape (N, C, H, W), not {seen}")
        if self.targets.dtype != torch.int64 or self.targets.ndim != 1:
            seen = f"{self.targets.dtype} of shape {tuple(self.targets.shape)}"
            raise ValueError(f"ImageSet: targets must be int64 of shape (N,), not {seen}")
        if len(self.images) != len(self.targets):
            raise ValueError(
                f"ImageSet: {len(self.images)} images but {len(self.targets)} targets; one target an image"
            )
        if len(self.targets) and int(self.targets.min()) < 0:
            raise ValueError(f"ImageSet: targets must not be negative, got {int(self.targets.min())}")
        if not self.images.is_contiguous():
            object.__setattr__(self, "images", self.images.contiguous())

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor | Sequence[int] | np.ndarray) -> ImageSet:
        """Copy the images at ``indices``, (M,), in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return ImageSet(self.images[chosen], self.targets[chosen])


@dataclass(frozen=True)
class LongTailData:
    """A long-tailed training set and the balanced test set that belongs to it.

    Attributes:
        name: The data set's name.
        train: The long-tailed training images, in no order to rely on: a sampler shuffles.
        test: The balanced test images.
        class_names: Name of each class, length C.
        mean: Mean of the pixels in 0..1, one a channel.
        std: Standard deviation of the pixels in 0..1, one a channel.
        dev: A small balanced set that is disjoint from ``train``; None unless one was asked for.
        train_indices: Position of each training image in the full training set, (N,), int64.
        imbalance: The imbalance factor asked for; 1 keeps every class equally large. Of natural data: as it is.
        profile: ``"exp"`` or ``"step"``; ``"natural"`` where nothing was cut.
        origin: The files behind the images; None for a data set that is no collection of image files.
        subset_seed: Seed of the choice of images, for the record.

    Raises:
        ValueError: A target names a class that does not exist, the image shapes differ between the sets, ``mean`` or
            ``std`` do not have one value a channel, or ``train_indices`` does not have one a training image.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dev: ImageSet | None
    train_indices: Tensor
    imbalance: float
    profile: str
    origin: Origin | None = None
    subset_seed: int = 0

    def __post_init__(self) -> None:
        for part, images in (("train", self.train), ("test", self.test), ("dev", self.dev)):
            if images is not None:
                self._check_part(part, images)
        channels = self.image_shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(
                f"{self.name}: {len(self.mean)} means and {len(self.std)} stds for {channels} channels; one a channel"
            )
        if len(self.train_indices) != len(self.train):
            raise ValueError(
                f"{self.name}: {len(self.train_indices)} train_indices for {len(self.train)} training images"
            )

    def _check_part(self, part: str, images: ImageSet) -> None:
        if len(images) and int(images.targets.max()) >= self.num_classes:
            worst = int(images.targets.max())
            raise ValueError(f"{self.name}: {part} has class {worst}, but only {self.num_classes} classes have names")
        if tuple(images.images.shape[1:]) != self.image_shape:
            shape = tuple(images.images.shape[1:])
            raise ValueError(f"{self.name}: {part} images are {shape}, training images {self.image_shape}")

    def with_dev_in_train(self) -> LongTailData:
        """Return the set with its dev images among the training images, where ``train_indices`` is -1, and no dev set.

        Without a dev set that is the set itself. All images are copied, those that are mapped from a file too.
        """
        if self.dev is None:
            return self
        images = torch.cat([self.train.images, self.dev.images])
        targets = torch.cat([self.train.targets, self.dev.targets])
        indices = torch.cat([self.train_indices, self.train_indices.new_full((len(self.dev),), -1)])
        return replace(self, train=ImageSet(images, targets), dev=None, train_indices=indices)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all images with class, split and order; of images from files that of their files."""
        digest = hashlib.blake2b(b"" if self.origin is None else self.origin.fingerprint.encode(), digest_size=16)
        for part, held in (("train", self.train), ("dev", self.dev), ("test", self.test)):
            if held is None:
                continue
            digest.update(f"{part} {tuple(held.images.shape)}".encode())
            digest.update(held.targets.contiguous().numpy().data)
            if self.origin is None:
                digest.update(held.images.numpy().data)
        return digest.hexdigest()

    @property
    def num_classes(self) -> int:
        """Number of classes C, those without a training image included."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training images per class, length C."""
        counts: list[int] = torch.bincount(self.train.targets, minlength=self.num_classes).tolist()
        return counts

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image: (C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width
