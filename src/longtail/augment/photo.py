"""Sizes of photographs: the random crop that training sees and the centre crop of the test, whole batches at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.augment.transforms import check_images, uniform

_ATTEMPTS = 10


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts a window of random area, shape and place out of each image and resizes it (Szegedy et al., CVPR 2015).

    Ten windows are drawn for an image, and the first that fits is taken; where none does, the largest centred one of an
    allowed shape. Resizing averages over pixels as Pillow's bilinear filter does: what shrinks is smoothed.

    Args:
        size: Side of the result; 224 in the recipes of ImageNet.
        scale: Least and largest share of the image's area; 0.08 and 1 in the recipes.
        ratio: Least and largest width over height; 3/4 and 4/3 in the recipes.

    Raises:
        ValueError: The size is below 1, or a range is empty or not above 0.

    Source: github.com/pytorch/vision, transforms (how the windows are drawn).
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"RandomResizedCrop: size must be at least 1, got {self.size}")
        for name, (low, high) in {"scale": self.scale, "ratio": self.ratio}.items():
            if not 0 < low <= high < math.inf:
                raise ValueError(f"RandomResizedCrop: {name} must be a range above 0, got {(low, high)}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the resized windows, (B, C, size, size), of images (B, C, H, W)."""
        check_images(images, "RandomResizedCrop")
        top, left, height, width = self.windows(images, generator)
        return resized_crop(images, top, left, height, width, self.size)

    def windows(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw top, left, height and width of each image's window, (B,) each, whole pixels in float32."""
        batch, _, full_height, full_width = images.shape
        draws = uniform((2, _ATTEMPTS, batch), generator, images.device)
        place = uniform((2, batch), generator, images.device)
        low, high = self.scale
        area = full_height * full_width * (low + (high - low) * draws[0])
        low, high = (math.log(bound) for bound in self.ratio)
        ratio = (low + (high - low) * draws[1]).exp()
        widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (widths > 0) & (widths <= full_width) & (heights > 0) & (heights <= full_height)
        # The first attempt that fits; argmax of nothing but False is 0, which is then replaced.
        first = fits.to(torch.uint8).argmax(0, keepdim=True)
        width, height = widths.gather(0, first)[0], heights.gather(0, first)[0]
        none = ~fits.any(0)
        shape = min(max(full_width / full_height, self.ratio[0]), self.ratio[1])
        width = torch.where(none, float(min(round(full_height * shape), full_width)), width)
        height = torch.where(none, float(min(round(full_width / shape), full_height)), height)
        rows, columns = full_height - height, full_width - width
        top = torch.where(none, (rows / 2).floor(), (place[0] * (rows + 1)).floor().minimum(rows))
        left = torch.where(none, (columns / 2).floor(), (place[1] * (columns + 1)).floor().minimum(columns))
        return top, left, height, width


def resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int) -> Tensor:
    """Resize one window of each image to a square, as cropping and Pillow's bilinear resizing do.

    The filter is separable: each image is multiplied from both sides by a matrix of its own. uint8 is rounded.

    Args:
        images: (B, C, H, W).
        top: First row of each window, (B,).
        left: First column, (B,).
        height: Rows, (B,).
        width: Columns, (B,).
        size: Side of the result.

    Returns:
        (B, C, size, size), of the images' type.
    """
    rows = _resampling(top, height, images.shape[2], size)
    columns = _resampling(left, width, images.shape[3], size)
    with torch.autocast(images.device.type, enabled=False):
        pixels = images.to(rows.dtype)
        resized = rows[:, None] @ (pixels @ columns[:, None].transpose(-2, -1))
    return to_pixels(resized, images.dtype)


def _resampling(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    """Return each image's matrix (B, size, full) that resamples ``length`` positions from ``start`` on to ``size``.

    A row holds a triangle around its centre, as wide as the step from row to row and at least a pixel to each side.
    """
    start, length = start[:, None, None], length[:, None, None]
    step = length / size
    reach = step.clamp(min=1)
    centre = start + (torch.arange(size, device=start.device)[None, :, None] + 0.5) * step
    position = torch.arange(full, device=start.device)[None, None]
    weight = (1 - (position + 0.5 - centre).abs() / reach).clamp(min=0)
    weight = weight * ((position >= start) & (position < start + length))
    return weight / weight.sum(-1, keepdim=True)


def to_pixels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return computed pixels in the images' type: uint8 rounded and cut to 0..255, others as they are."""
    return values.round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)


@dataclass(frozen=True)
class CentreCrop:
    """Cuts the square in the middle, what the test sees: 224 of 256 pixels in the recipes of ImageNet.

    Args:
        size: Side of the square.

    Raises:
        ValueError: The size is below 1.
    """

    size: int = 224

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"CentreCrop: size must be at least 1, got {self.size}")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the middles, (B, C, size, size), of images (B, C, H, W).

        Raises:
            ValueError: An image is smaller than that.
        """
        check_images(images, "CentreCrop")
        height, width = images.shape[2:]
        if min(height, width) < self.size:
            raise ValueError(f"CentreCrop: a crop of {self.size} pixels needs images as large, got {height}x{width}")
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return images[:, :, top : top + self.size, left : left + self.size]
