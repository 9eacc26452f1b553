"""RandAugment (Cubuk et al., NeurIPS 2020): a few operations of a list for each image, whole batches at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.augment.color import blend, grey, mean_grey
from longtail.augment.photo import to_pixels
from longtail.augment.transforms import check_images, uniform

FILL = (124, 116, 104)
"""What comes in from outside: the mean colour of ImageNet."""

_TRANSLATE, _SHEAR, _ROTATE = 0.45, 0.3, math.radians(30)


def affine(images: Tensor, matrices: Tensor, fill: tuple[int, ...] = FILL) -> Tensor:
    """Move pixels as Pillow's bilinear transform does: (x, y) takes the value at ``a x + b y + c, d x + e y + f``.

    Args:
        images: uint8, (B, C, H, W).
        matrices: Rows (a, b, c) and (d, e, f) of each image, (B, 2, 3), of positions counted from the images' corner.
        fill: Colour of what comes from outside; grey images take its mean.

    Returns:
        uint8, (B, C, H, W).
    """
    batch, channels, height, width = images.shape
    y = torch.arange(height, device=images.device, dtype=torch.float32) + 0.5
    x = torch.arange(width, device=images.device, dtype=torch.float32) + 0.5
    places = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), torch.ones_like(x).expand(height, -1)])
    across, down = (matrices @ places.flatten(1)).view(batch, 2, height, width).unbind(1)
    inside = ((across >= 0) & (across < width) & (down >= 0) & (down < height))[:, None]
    grid = torch.stack([2 * across / width - 1, 2 * down / height - 1], -1)
    moved = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    colours = fill if channels == len(fill) else (sum(fill) / len(fill),) * channels
    outside = torch.tensor(colours).view(1, -1, 1, 1).to(images.device, torch.float32, non_blocking=True)
    return to_pixels(torch.where(inside, moved, outside), torch.uint8)


def _plain(like: Tensor) -> Tensor:
    """Return the matrices that move nothing, (B, 2, 3), for a vector (B,)."""
    return torch.eye(2, 3, device=like.device).repeat(len(like), 1, 1)


def shear_x(images: Tensor, amount: Tensor) -> Tensor:
    """Move each row by ``amount`` (B,) times its number."""
    matrices = _plain(amount)
    matrices[:, 0, 1] = amount
    return affine(images, matrices)


def shear_y(images: Tensor, amount: Tensor) -> Tensor:
    """Move each column by ``amount`` (B,) times its number."""
    matrices = _plain(amount)
    matrices[:, 1, 0] = amount
    return affine(images, matrices)


def translate_x(images: Tensor, share: Tensor) -> Tensor:
    """Move to the left by a share (B,) of the width."""
    matrices = _plain(share)
    matrices[:, 0, 2] = share * images.shape[3]
    return affine(images, matrices)


def translate_y(images: Tensor, share: Tensor) -> Tensor:
    """Move up by a share (B,) of the height."""
    matrices = _plain(share)
    matrices[:, 1, 2] = share * images.shape[2]
    return affine(images, matrices)


def turn(images: Tensor, angle: Tensor) -> Tensor:
    """Turn counter-clockwise about the centre by angles (B,) in radians."""
    half_height, half_width = images.shape[2] / 2, images.shape[3] / 2
    cosine, sine = angle.cos(), angle.sin()
    first = torch.stack([cosine, -sine, half_width - cosine * half_width + sine * half_height], 1)
    second = torch.stack([sine, cosine, half_height - sine * half_width - cosine * half_height], 1)
    return affine(images, torch.stack([first, second], 1))


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel so that its darkest pixel is 0 and its brightest 255."""
    pixels = images.float()
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    scale = 255 / (high - low).clamp(min=1)
    stretched = (pixels * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor) -> Tensor:
    """Spread each channel's histogram evenly, by Pillow's rule."""
    values = images.flatten(2).long()
    histogram = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    top = values.amax(2, keepdim=True)
    step = (values.shape[2] - histogram.gather(2, top)) // 255
    before = histogram.cumsum(2) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    spread = table.gather(2, values).to(torch.uint8).view_as(images)
    return torch.where((step > 0)[..., None], spread, images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the first ``bits`` (B,), int64 in 0..8, of each pixel."""
    dropped = 2 ** (8 - bits.view(-1, 1, 1, 1))
    return (images.long() // dropped * dropped).to(torch.uint8)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels from a threshold (B,) on."""
    return torch.where(images < threshold.view(-1, 1, 1, 1), images, 255 - images)


def solarize_add(images: Tensor, amount: Tensor) -> Tensor:
    """Add an amount (B,) to pixels below 128."""
    brighter = (images.long() + amount.view(-1, 1, 1, 1)).clamp(max=255).to(torch.uint8)
    return torch.where(images < 128, brighter, images)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the smoothed image; the outermost pixels stay as they are."""
    kernel = torch.full((3, 3), 1 / 13)
    kernel[1, 1] = 5 / 13
    channels = images.shape[1]
    weight = kernel.to(images.device, non_blocking=True).expand(channels, 1, 3, 3)
    smooth = images.clone()
    if min(images.shape[2:]) > 2:
        smooth[:, :, 1:-1, 1:-1] = to_pixels(F.conv2d(images.float(), weight, groups=channels), torch.uint8)
    return blend(images, smooth, factor)


def _enhanced(level: Tensor) -> Tensor:
    return 1.8 * level + 0.1


def _contrast(images: Tensor, level: Tensor) -> Tensor:
    return blend(images, mean_grey(grey(images), images.dtype), _enhanced(level))


# Each operation takes uint8 images (B, C, H, W), levels (B,) in 0..1 and signs (B,) of -1 or 1.
OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda images, level, sign: autocontrast(images),
    "equalize": lambda images, level, sign: equalize(images),
    "invert": lambda images, level, sign: 255 - images,
    "rotate": lambda images, level, sign: turn(images, sign * level * _ROTATE),
    "posterize": lambda images, level, sign: posterize(images, (4 * level).long()),
    "solarize": lambda images, level, sign: solarize(images, (256 * level).long()),
    "solarize-add": lambda images, level, sign: solarize_add(images, (110 * level).long()),
    "color": lambda images, level, sign: blend(images, grey(images), _enhanced(level)),
    "contrast": lambda images, level, sign: _contrast(images, level),
    "brightness": lambda images, level, sign: blend(images, torch.zeros_like(images[:1]), _enhanced(level)),
    "sharpness": lambda images, level, sign: sharpness(images, _enhanced(level)),
    "shear-x": lambda images, level, sign: shear_x(images, sign * level * _SHEAR),
    "shear-y": lambda images, level, sign: shear_y(images, sign * level * _SHEAR),
    "translate-x": lambda images, level, sign: translate_x(images, sign * level * _TRANSLATE),
    "translate-y": lambda images, level, sign: translate_y(images, sign * level * _TRANSLATE),
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
        check_images(images, "RandAugment")
        if images.dtype != torch.uint8:
            raise ValueError(f"RandAugment: needs uint8 images, got {images.dtype}; put it before Normalize")
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
