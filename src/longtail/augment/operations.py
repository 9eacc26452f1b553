"""Operations on uint8 images as Pillow does them, whole batches at once: what RandAugment and AutoAugment draw from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.augment.color import blend, grey, mean_grey
from longtail.augment.photo import to_pixels

FILL = (124, 116, 104)
"""What comes in from outside: the mean colour of ImageNet."""


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


def shear_x(images: Tensor, amount: Tensor, fill: tuple[int, ...] = FILL) -> Tensor:
    """Move each row by ``amount`` (B,) times its number."""
    matrices = _plain(amount)
    matrices[:, 0, 1] = amount
    return affine(images, matrices, fill)


def shear_y(images: Tensor, amount: Tensor, fill: tuple[int, ...] = FILL) -> Tensor:
    """Move each column by ``amount`` (B,) times its number."""
    matrices = _plain(amount)
    matrices[:, 1, 0] = amount
    return affine(images, matrices, fill)


def translate_x(images: Tensor, share: Tensor, fill: tuple[int, ...] = FILL) -> Tensor:
    """Move to the left by a share (B,) of the width."""
    matrices = _plain(share)
    matrices[:, 0, 2] = share * images.shape[3]
    return affine(images, matrices, fill)


def translate_y(images: Tensor, share: Tensor, fill: tuple[int, ...] = FILL) -> Tensor:
    """Move up by a share (B,) of the height."""
    matrices = _plain(share)
    matrices[:, 1, 2] = share * images.shape[2]
    return affine(images, matrices, fill)


def turn(images: Tensor, angle: Tensor, fill: tuple[int, ...] = FILL) -> Tensor:
    """Turn counter-clockwise about the centre by angles (B,) in radians."""
    half_height, half_width = images.shape[2] / 2, images.shape[3] / 2
    cosine, sine = angle.cos(), angle.sin()
    first = torch.stack([cosine, -sine, half_width - cosine * half_width + sine * half_height], 1)
    second = torch.stack([sine, cosine, half_height - sine * half_width - cosine * half_height], 1)
    return affine(images, torch.stack([first, second], 1), fill)


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


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image."""
    return blend(images, grey(images), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean of the grey image."""
    return blend(images, mean_grey(grey(images), images.dtype), factor)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return blend(images, torch.zeros_like(images[:1]), factor)
