"""Colours of images: brightness, contrast, saturation and hue, whole batches at once, as Pillow computes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.augment.transforms import check_images, uniform

_LUMA = (0.299, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


def grey(images: Tensor) -> Tensor:
    """Return the brightness of images (B, C, H, W) as Pillow weighs red, green and blue: (B, 1, H, W), float32.

    Whole numbers where the pixels are.
    """
    pixels = images.to(torch.float32)
    if pixels.shape[1] == 3:
        red, green, blue = (weight * part for weight, part in zip(_LUMA, torch.split(pixels, 1, 1), strict=True))
        pixels = red + green + blue
    else:
        pixels = pixels.mean(1, keepdim=True)
    return (pixels + 0.5).floor() if images.dtype == torch.uint8 else pixels


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return ``other + factor * (images - other)``, cut to the range of pixels; a factor above 1 moves away.

    Args:
        images: (B, C, H, W), uint8, or floating point in 0..1.
        other: What a factor of 0 gives; of a shape that broadcasts.
        factor: One for each image, (B,).

    Returns:
        Of the images' shape and type; uint8 is cut off and not rounded, as Pillow does.
    """
    pixels = images.to(torch.float32)
    mixed = torch.lerp(other.to(torch.float32).expand_as(pixels), pixels, factor.view(-1, 1, 1, 1))
    if images.dtype != torch.uint8:
        return mixed.clamp(0, 1).to(images.dtype)
    return mixed.clamp(0, 255).to(torch.uint8)


def mean_grey(luma: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mean of each image's `grey`, (B, 1, 1, 1); a whole number where ``dtype`` is uint8."""
    mean = luma.mean((1, 2, 3), keepdim=True)
    return (mean + 0.5).floor() if dtype == torch.uint8 else mean


def shift_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of images, (B, 3, H, W), by a share of the whole circle, (B,); brightness and saturation stay."""
    top = 255 if images.dtype == torch.uint8 else 1
    pixels = images.to(torch.float32) / top
    value, _ = pixels.max(1)
    chroma = value - pixels.min(1).values
    red, green, blue = pixels.unbind(1)
    safe = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(value == red, (green - blue) / safe, (red - green) / safe + 4)
    hue = torch.where((value == green) & (value != red), (blue - red) / safe + 2, hue)
    hue = hue + 6 * turn.view(-1, 1, 1)
    # A channel is `value` minus chroma times a trapezium of the hue, shifted by 5, 3 and 1 sixths.
    channels = []
    for shift in (5, 3, 1):
        k = (hue + shift) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    turned = torch.stack(channels, 1) * top
    return turned.round().clamp(0, 255).to(torch.uint8) if top == 255 else turned.to(images.dtype)


@dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue of each image by random factors in a random order.

    A strength s draws factors from U[max(0, 1 - s), 1 + s], the hue turns by U[-s, s] of the circle. The ImageNet-LT
    recipes have 0.4, 0.4, 0.4 and 0. Grey images have no saturation and no hue.

    Args:
        brightness: Strength of the blend with black.
        contrast: Strength of the blend with the image's mean brightness.
        saturation: Strength of the blend with the grey image.
        hue: Largest turn of the hue, in 0..0.5.

    Raises:
        ValueError: A strength is negative, or the hue above 0.5.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def __post_init__(self) -> None:
        if not (all(s >= 0 for s in (self.brightness, self.contrast, self.saturation)) and 0 <= self.hue <= 0.5):
            raise ValueError(f"ColorJitter: strengths must be at least 0 and hue at most 0.5, got {self}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed batch (B, C, H, W); floating-point images are in 0..1."""
        check_images(images, "ColorJitter")
        order, factors = self.draws(len(images), generator, images.device)
        colours = images.shape[1] == 3
        for chosen in order:
            factor = factors.gather(0, chosen[None])[0]
            images = self._changed(images, chosen, factor, colours)
        return images

    def draws(self, batch: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw the order of the K changes, (K, B), and the factor of each, (4, B); K is 4 with hue and 3 without."""
        changes = 4 if self.hue else 3
        order = uniform((changes, batch), generator, device).argsort(0)
        unit = uniform((4, batch), generator, device)
        rows = []
        for row, strength in zip(unit, (self.brightness, self.contrast, self.saturation), strict=False):
            low, high = max(0.0, 1 - strength), 1 + strength
            rows.append(low + (high - low) * row)
        rows.append((2 * unit[_HUE] - 1) * self.hue)
        return order, torch.stack(rows)

    def _changed(self, images: Tensor, chosen: Tensor, factor: Tensor, colours: bool) -> Tensor:
        """Change each image in the way that is its turn. The blends are one, with another partner each."""
        kind, luma = chosen.view(-1, 1, 1, 1), grey(images)
        partner = torch.where(kind == _CONTRAST, mean_grey(luma, images.dtype), luma)
        partner = partner.masked_fill(kind == _BRIGHTNESS, 0)
        still = (chosen == _HUE) if colours else (chosen >= _SATURATION)
        blended = torch.where(still.view(-1, 1, 1, 1), images, blend(images, partner, factor))
        if self.hue and colours:
            return torch.where(kind == _HUE, shift_hue(images, factor), blended)
        return blended
