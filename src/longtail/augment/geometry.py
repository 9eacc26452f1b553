"""Random crop, flip, rotation and cutout: whole batches at once, one draw per image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.augment.transforms import check_images, integers, uniform


@dataclass(frozen=True)
class RandomCrop:
    """Pads all four sides and cuts a window of the original size at a random place.

    Args:
        padding: Pixels added on each side; 4 in all CIFAR recipes. 0 leaves the images as they are.
        mode: ``"zero"`` (most recipes) or ``"reflect"`` (mirrored without repeating the edge; Longtail_DA,
            Meta-Weight-Net).

    Raises:
        ValueError: For a negative padding or an unknown mode.
    """

    padding: int = 4
    mode: Literal["zero", "reflect"] = "zero"

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"RandomCrop: padding must be at least 0, got {self.padding}")
        if self.mode not in ("zero", "reflect"):
            raise ValueError(f"RandomCrop: mode must be 'zero' or 'reflect', got {self.mode!r}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the crops, (B, C, H, W)."""
        check_images(images, "RandomCrop")
        if self.padding == 0:
            return images
        batch, _, height, width = images.shape
        top, left = integers(2 * self.padding + 1, (2, batch), generator, images.device)
        # All windows as one view; picking one per image copies each pixel once.
        windows = self._padded(images).unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(batch, device=images.device), :, top, left]

    def _padded(self, images: Tensor) -> Tensor:
        p = self.padding
        if self.mode == "zero":
            return F.pad(images, (p, p, p, p))
        height, width = images.shape[2:]
        if p >= min(height, width):
            raise ValueError(f"RandomCrop: reflecting {p} pixels needs images larger than that, got {height}x{width}")
        # Torch's own reflection does not take uint8.
        rows, columns = (_mirrored(side, p, images.device) for side in (height, width))
        return images.index_select(2, rows).index_select(3, columns)


def _mirrored(side: int, padding: int, device: torch.device) -> Tensor:
    """Return the pixel behind each position of a padded side: p..1, 0..side-1, side-2..side-1-p."""
    positions = torch.arange(-padding, side + padding, device=device).abs()
    return (side - 1) - ((side - 1) - positions).abs()


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors each image left to right with probability ``p``.

    Args:
        p: Probability of a flip; 0.5 in all recipes.

    Raises:
        ValueError: If ``p`` is not within 0..1.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"RandomFlip: p must be within 0..1, got {self.p}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch (B, C, H, W) with some images mirrored."""
        check_images(images, "RandomFlip")
        flipped = uniform((len(images), 1, 1, 1), generator, images.device) < self.p
        return torch.where(flipped, images.flip(3), images)


@dataclass(frozen=True)
class RandomRotation:
    """Turns each image about its centre by an angle from U[-degrees, degrees]; nearest pixel, zeros from outside.

    Args:
        degrees: Largest angle; 15 in RIDE's CIFAR recipe. 0 leaves the images as they are.

    Raises:
        ValueError: If ``degrees`` is negative or not finite.
    """

    degrees: float = 15.0

    def __post_init__(self) -> None:
        if not (self.degrees >= 0 and math.isfinite(self.degrees)):
            raise ValueError(f"RandomRotation: degrees must be finite and at least 0, got {self.degrees}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the turned batch, (B, C, H, W)."""
        check_images(images, "RandomRotation")
        if self.degrees == 0:
            return images
        unit = 2 * uniform((len(images),), generator, images.device) - 1
        return rotate(images, unit * math.radians(self.degrees))


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Turn images (B, C, H, W) counter-clockwise about their centres by ``angles`` (B,) in radians.

    Each output pixel takes the nearest input pixel, or zero where that lies outside, as Pillow's default does.
    """
    batch, channels, height, width = images.shape
    y = (torch.arange(height, device=images.device) - (height - 1) / 2).view(1, height, 1)
    x = (torch.arange(width, device=images.device) - (width - 1) / 2).view(1, 1, width)
    cosine, sine = angles.cos().view(batch, 1, 1), angles.sin().view(batch, 1, 1)
    source_x = torch.floor(x * cosine - y * sine + width / 2).long()
    source_y = torch.floor(y * cosine + x * sine + height / 2).long()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    position = source_y.clamp_(0, height - 1) * width + source_x.clamp_(0, width - 1)
    position = position.flatten(1)[:, None].expand(-1, channels, -1)
    turned = images.flatten(2).gather(2, position).view(images.shape)
    return turned.masked_fill(~inside[:, None], 0)


@dataclass(frozen=True)
class Cutout:
    """Blackens one square per image (DeVries and Taylor, Cutout, arXiv 1708.04552, 2017).

    The square's centre lies anywhere in the image, so part of the square may fall outside.

    Args:
        size: Side of the square; 16 in the CIFAR recipes. 0 leaves the images as they are; None takes half of the
            image's shorter side.

    Raises:
        ValueError: If ``size`` is negative.
    """

    size: int | None = 16

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 0:
            raise ValueError(f"Cutout: size must be at least 0, got {self.size}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch (B, C, H, W) with one square of zeros in each image."""
        check_images(images, "Cutout")
        batch, _, height, width = images.shape
        size = min(height, width) // 2 if self.size is None else self.size
        rows = _covered(size, height, batch, generator, images.device)
        columns = _covered(size, width, batch, generator, images.device)
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _covered(size: int, side: int, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw which positions of one side each image's square covers: (B, side), bool."""
    first = integers(side, (batch, 1), generator, device) - size // 2
    positions = torch.arange(side, device=device)
    return (positions >= first) & (positions < first + size)
