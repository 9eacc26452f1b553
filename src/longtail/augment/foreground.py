"""Moving what a classifier looks at over its own background (Zhang et al., Bag of Tricks, AAAI 2021)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TURN, SCALE = math.radians(45), (0.8, 1.2)


def activation_masks(maps: Tensor, weights: Tensor, size: tuple[int, int], threshold: float = 0.75) -> Tensor:
    """Return where class-activation maps are at least ``threshold`` times their mean.

    The map is w_c . F at each position, shifted and scaled to 0..1, then enlarged bilinearly.

    Args:
        maps: F, the last feature maps, (B, d, h, w).
        weights: w_c, the classifier's weights of each image's class, (B, d).
        size: (H, W) of the images.
        threshold: Share of the mean; 3/4 in the official code.

    Returns:
        (B, 1, H, W), bool; nothing where the map is the same everywhere.
    """
    cam = torch.einsum("bdhw,bd->bhw", maps.float(), weights.float()).unsqueeze(1)
    low, high = cam.amin((2, 3), keepdim=True), cam.amax((2, 3), keepdim=True)
    varied = high > low
    cam = (cam - low) / torch.where(varied, high - low, 1)
    cam = F.interpolate(cam, size=size, mode="bilinear", align_corners=False)
    return (cam >= threshold * cam.mean((2, 3), keepdim=True)) & varied


def draw_moves(masks: Tensor) -> Tensor:
    """Draw for each image one of three moves of its foreground, from torch's global generator.

    Each with probability 1/3: turn by -45 to 45 degrees and scale by 0.8 to 1.2 about the centre of its box; shift by
    whole pixels to anywhere in the image; mirror the image from left to right.

    Args:
        masks: The foreground, (B, 1, H, W), bool.

    Returns:
        Matrices (B, 2, 3) from positions (x, y, 1) in the result to (x, y) in the image, pixel i from i to i + 1.
    """
    count, device = len(masks), masks.device
    (left, right), (top, bottom) = _ends(masks.any(2)), _ends(masks.any(3))
    width, height = masks.shape[3], masks.shape[2]
    kind = torch.randint(3, (count,), device=device)
    random = torch.rand(4, count, device=device)
    shift_x = ((width - right + left + 1) * random[0]).floor() - left
    shift_y = ((height - bottom + top + 1) * random[1]).floor() - top
    angle = torch.where(kind == 0, TURN * (2 * random[2] - 1), 0)
    scale = torch.where(kind == 0, SCALE[0] + (SCALE[1] - SCALE[0]) * random[3], 1)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    x, y = (left + right) / 2, (top + bottom) / 2
    turned = torch.stack([cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y], 1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    shifted = torch.stack([one, zero, -shift_x, zero, one, -shift_y], 1)
    mirrored = torch.stack([-one, zero, zero + width, zero, one, zero], 1)
    moves = torch.stack([turned, shifted, mirrored])
    return moves[kind, torch.arange(count, device=device)].view(count, 2, 3)


def move_foregrounds(images: Tensor, masks: Tensor, moves: Tensor) -> Tensor:
    """Paste each image's moved foreground over the image itself; what it leaves stays as it was.

    Args:
        images: (B, C, H, W), floating point.
        masks: The foreground, (B, 1, H, W), bool.
        moves: As `draw_moves` returns them, (B, 2, 3).

    Returns:
        (B, C, H, W); moved pixels are interpolated bilinearly.
    """
    height, width = images.shape[-2:]
    # affine_grid has positions from -1 to 1: (2 x / W - 1, 2 y / H - 1) for a pixel position (x, y).
    a, b, x, c, d, y = moves.flatten(1).unbind(1)
    linear = torch.stack([a, b * height / width, c * width / height, d], 1).view(-1, 2, 2)
    offset = torch.stack([2 * x / width, 2 * y / height], 1) - 1 + linear.sum(-1)
    grid = F.affine_grid(torch.cat([linear, offset.unsqueeze(-1)], -1), list(masks.shape), align_corners=False)
    moved = F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    covered = F.grid_sample(masks.float(), grid.float(), mode="nearest", align_corners=False) > 0.5
    return torch.where(covered, moved, images)


def _ends(present: Tensor) -> tuple[Tensor, Tensor]:
    """Return where (B, 1, L) begins and ends to be True, (B,) each; 0 and L where it never is."""
    present = present.flatten(1).float()
    return present.argmax(1).float(), present.shape[1] - present.flip(1).argmax(1).float()
