"""A transform that only some images of a batch undergo, and the loss of colour, as contrastive learning uses both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.augment.color import grey
from longtail.augment.transforms import Transform, check_images, uniform


@dataclass(frozen=True)
class Sometimes:
    """Applies a transform to each image with probability ``p``.

    All images are transformed and some are kept as they were, so that nothing waits to learn which.

    Args:
        transform: Keeps the images' shape and type.
        p: Probability; MoCo v2 has 0.8 for colour jitter and 0.2 for grey.

    Raises:
        ValueError: If ``p`` is not within 0..1.
    """

    transform: Transform
    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"Sometimes: p must be within 0..1, got {self.p}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch (B, C, H, W) with some images changed."""
        check_images(images, "Sometimes")
        chosen = uniform((len(images), 1, 1, 1), generator, images.device) < self.p
        return torch.where(chosen, self.transform(images, generator), images)


@dataclass(frozen=True)
class Grey:
    """Takes the colour out of images; those of one channel stay as they are."""

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the batch (B, C, H, W) with equal channels."""
        check_images(images, "Grey")
        return grey(images).to(images.dtype).expand_as(images)
