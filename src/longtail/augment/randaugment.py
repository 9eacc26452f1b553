"""RandAugment (Cubuk et al., NeurIPS 2020): a few operations of a list for each image, whole batches at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.augment import operations as op
from longtail.augment.transforms import check_pixels, uniform

_TRANSLATE, _SHEAR, _ROTATE = 0.45, 0.3, math.radians(30)


def _enhanced(level: Tensor) -> Tensor:
    return 1.8 * level + 0.1


# Each operation takes uint8 images (B, C, H, W), levels (B,) in 0..1 and signs (B,) of -1 or 1.
OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda images, level, sign: op.autocontrast(images),
    "equalize": lambda images, level, sign: op.equalize(images),
    "invert": lambda images, level, sign: 255 - images,
    "rotate": lambda images, level, sign: op.turn(images, sign * level * _ROTATE),
    "posterize": lambda images, level, sign: op.posterize(images, (4 * level).long()),
    "solarize": lambda images, level, sign: op.solarize(images, (256 * level).long()),
    "solarize-add": lambda images, level, sign: op.solarize_add(images, (110 * level).long()),
    "color": lambda images, level, sign: op.color(images, _enhanced(level)),
    "contrast": lambda images, level, sign: op.contrast(images, _enhanced(level)),
    "brightness": lambda images, level, sign: op.brightness(images, _enhanced(level)),
    "sharpness": lambda images, level, sign: op.sharpness(images, _enhanced(level)),
    "shear-x": lambda images, level, sign: op.shear_x(images, sign * level * _SHEAR),
    "shear-y": lambda images, level, sign: op.shear_y(images, sign * level * _SHEAR),
    "translate-x": lambda images, level, sign: op.translate_x(images, sign * level * _TRANSLATE),
    "translate-y": lambda images, level, sign: op.translate_y(images, sign * level * _TRANSLATE),
}


@dataclass(frozen=True)
class RandAugment:
    """Applies a few operations of a list of fifteen to each image, each with probability ``p``.

    List, strengths and defaults are those of timm's ``rand-n2-m10-mstd0.5``, the setting of the long-tail papers that
    train on ImageNet-LT with strong augmentation (PaCo, BCL, CMO). As there, posterising and solarising are weakest at
    the largest magnitude. Moved pixels are always interpolated bilinearly.

    Operations share a batch out evenly: an image gets each with the same probability, but two images of a batch are a
    little less likely to get the same one than if they drew alone. So each operation runs on its share only, and
    nothing waits to learn how large it is.

    Args:
        operations: Operations for each image, one after the other.
        magnitude: Mean strength, in 0..10.
        spread: Standard deviation of the strength.
        p: Probability that an operation is applied.

    Raises:
        ValueError: A number is out of range.

    Source: github.com/huggingface/pytorch-image-models, timm/data/auto_augment.py (list and strengths).
    """

    operations: int = 2
    magnitude: float = 10.0
    spread: float = 0.5
    p: float = 0.5

    def __post_init__(self) -> None:
        if not (self.operations >= 0 and 0 <= self.magnitude <= 10 and self.spread >= 0 and 0 <= self.p <= 1):
            raise ValueError(
                "RandAugment: needs operations and spread of at least 0, magnitude within 0..10 and p within 0..1, "
                f"got {self}"
            )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed batch, uint8 (B, C, H, W).

        Raises:
            ValueError: The images are not uint8.
        """
        check_pixels(images, "RandAugment")
        for _ in range(self.operations if len(images) else 0):
            changed = self._changed(images, generator)
            applied = uniform((len(images), 1, 1, 1), generator, images.device) < self.p
            images = torch.where(applied, changed, images)
        return images

    def _changed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change each image by one operation: each has as many places, and an image takes one of all places."""
        device, home = images.device, generator.device
        share = math.ceil(len(images) / len(OPERATIONS))
        places = share * len(OPERATIONS)
        noise = torch.randn(places, generator=generator, device=home).to(device, non_blocking=True)
        level = ((self.magnitude + self.spread * noise) / 10).clamp(0, 1)
        sign = 2 * (uniform((places,), generator, device) < 0.5).float() - 1
        order = uniform((places,), generator, device).argsort()
        # `order` says which image is in a place; numbers beyond the batch are places that stay empty.
        filled = images.index_select(0, order.clamp(max=len(images) - 1))
        parts = zip(*(torch.split(values, share) for values in (filled, level, sign)), strict=True)
        changed = torch.cat([change(*part) for change, part in zip(OPERATIONS.values(), parts, strict=True)])
        return changed.index_select(0, order.argsort()[: len(images)])
