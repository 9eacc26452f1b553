"""Rotation prediction's images (Gidaris et al., RotNet, ICLR 2018): turned by 0, 90, 180 or 270 degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.augment.transforms import check_images


def quarter_turns(images: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each image by one of the four angles; a batch holds each angle equally often, to within one image.

    Pixels move and are not interpolated. RotNet itself shows all four copies of each image; one of them, drawn anew
    each time, is what SSP does at a quarter of the cost. The draw is from torch's global generator.

    Args:
        images: (B, C, H, H), square.

    Returns:
        The turned images, in a random order, and how many quarters each was turned counter-clockwise, (B,), int64.

    Raises:
        ValueError: The images are not square.

    Source: github.com/YyzHarry/imbalanced-semi-self.
    """
    check_images(images, "quarter_turns")
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"quarter_turns: images must be square to be turned, got {images.shape[2]}x{images.shape[3]}")
    order = torch.randperm(len(images), device=images.device)
    turned, turns = [], []
    for turn, part in enumerate(order.tensor_split(4)):
        turned.append(images.index_select(0, part).rot90(turn, (2, 3)))
        turns.append(torch.full_like(part, turn))
    return torch.cat(turned).contiguous(memory_format=torch.channels_last), torch.cat(turns)
