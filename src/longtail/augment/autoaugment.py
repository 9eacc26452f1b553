"""AutoAugment (Cubuk et al., CVPR 2019): pairs of operations that were found on CIFAR-10, whole batches at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.augment import operations as op
from longtail.augment.transforms import check_pixels, uniform

FILL = (128, 128, 128)
"""What comes in from outside."""

_TRANSLATE, _SHEAR, _ROTATE, _ENHANCE = 150 / 331, 0.3, math.radians(30), 0.9

Step = tuple[float, str, int]
"""Probability, operation and strength, 0 to 9."""

POLICY: tuple[tuple[Step, Step], ...] = (
    ((0.1, "invert", 7), (0.2, "contrast", 6)),
    ((0.7, "rotate", 2), (0.3, "translate-x", 9)),
    ((0.8, "sharpness", 1), (0.9, "sharpness", 3)),
    ((0.5, "shear-y", 8), (0.7, "translate-y", 9)),
    ((0.5, "autocontrast", 8), (0.9, "equalize", 2)),
    ((0.2, "shear-y", 7), (0.3, "posterize", 7)),
    ((0.4, "color", 3), (0.6, "brightness", 7)),
    ((0.3, "sharpness", 9), (0.7, "brightness", 9)),
    ((0.6, "equalize", 5), (0.5, "equalize", 1)),
    ((0.6, "contrast", 7), (0.6, "sharpness", 5)),
    ((0.7, "color", 7), (0.5, "translate-x", 8)),
    ((0.3, "equalize", 7), (0.4, "autocontrast", 8)),
    ((0.4, "translate-y", 3), (0.2, "sharpness", 6)),
    ((0.9, "brightness", 6), (0.2, "color", 8)),
    ((0.5, "solarize", 2), (0.0, "invert", 3)),
    ((0.2, "equalize", 0), (0.6, "autocontrast", 0)),
    ((0.2, "equalize", 8), (0.6, "equalize", 4)),
    ((0.9, "color", 9), (0.6, "equalize", 6)),
    ((0.8, "autocontrast", 4), (0.2, "solarize", 8)),
    ((0.1, "brightness", 3), (0.7, "color", 0)),
    ((0.4, "solarize", 5), (0.9, "autocontrast", 3)),
    ((0.9, "translate-y", 9), (0.7, "translate-y", 9)),
    ((0.9, "autocontrast", 2), (0.8, "solarize", 3)),
    ((0.8, "equalize", 8), (0.1, "invert", 3)),
    ((0.7, "translate-y", 9), (0.9, "autocontrast", 1)),
)
"""The 25 pairs of CIFAR-10."""


def _enhanced(level: Tensor, sign: Tensor) -> Tensor:
    return 1 + sign * _ENHANCE * level


# Each operation takes uint8 images (B, C, H, W), levels (B,) in 0..1 and signs (B,) of -1 or 1.
OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda images, level, sign: op.autocontrast(images),
    "equalize": lambda images, level, sign: op.equalize(images),
    "invert": lambda images, level, sign: 255 - images,
    "rotate": lambda images, level, sign: op.turn(images, level * _ROTATE, FILL),
    "posterize": lambda images, level, sign: op.posterize(images, (8 - 4 * level).round().long()),
    "solarize": lambda images, level, sign: op.solarize(images, 256 * (1 - level)),
    "color": lambda images, level, sign: op.color(images, _enhanced(level, sign)),
    "contrast": lambda images, level, sign: op.contrast(images, _enhanced(level, sign)),
    "brightness": lambda images, level, sign: op.brightness(images, _enhanced(level, sign)),
    "sharpness": lambda images, level, sign: op.sharpness(images, _enhanced(level, sign)),
    "shear-y": lambda images, level, sign: op.shear_y(images, sign * level * _SHEAR, FILL),
    "translate-x": lambda images, level, sign: op.translate_x(images, sign * level * _TRANSLATE, FILL),
    "translate-y": lambda images, level, sign: op.translate_y(images, sign * level * _TRANSLATE, FILL),
}


@dataclass(frozen=True)
class AutoAugment:
    """Applies one pair of operations of `POLICY` to each image, each operation with its own probability.

    Strengths are those of the Pillow version that the long-tail papers share (PaCo, BALMS, NCL, BCL): signs are drawn
    but for the rotation, and what comes from outside is mid-grey. Moved pixels are interpolated bilinearly; there a
    shear is bicubic, and shift and rotation take the nearest pixel. Pairs share a batch out evenly, as in
    `RandAugment`.

    Source: github.com/DeepVoltaire/AutoAugment, autoaugment.py (pairs and strengths).
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed batch, uint8 (B, C, H, W).

        Raises:
            ValueError: The images are not uint8.
        """
        check_pixels(images, "AutoAugment")
        if not len(images):
            return images
        share = math.ceil(len(images) / len(POLICY))
        places = share * len(POLICY)
        # `order` says which image is in a place; numbers beyond the batch are places that stay empty.
        order = uniform((places,), generator, images.device).argsort()
        filled = images.index_select(0, order.clamp(max=len(images) - 1))
        for steps in zip(*POLICY, strict=True):
            sign = 2 * (uniform((places,), generator, images.device) < 0.5).float() - 1
            chances = _repeated([step[0] for step in steps], share, images.device).view(-1, 1, 1, 1)
            applied = uniform((places, 1, 1, 1), generator, images.device) < chances
            filled = torch.where(applied, _changed(filled, steps, sign, share), filled)
        return filled.index_select(0, order.argsort()[: len(images)])


def _repeated(values: list[float], times: int, device: torch.device) -> Tensor:
    """Return each value so many times, one after the other."""
    return torch.tensor(values).repeat_interleave(times).to(device, non_blocking=True)


def _changed(images: Tensor, steps: tuple[Step, ...], sign: Tensor, share: int) -> Tensor:
    """Change the images of each share by its step; those of one operation at once, whatever their strengths."""
    parts, signs = torch.split(images, share), torch.split(sign, share)
    changed = list(parts)
    for name, change in OPERATIONS.items():
        own = [k for k, step in enumerate(steps) if step[1] == name]
        if own:
            levels = _repeated([steps[k][2] / 9 for k in own], share, images.device)
            done = change(torch.cat([parts[k] for k in own]), levels, torch.cat([signs[k] for k in own]))
            for k, part in zip(own, torch.split(done, share), strict=True):
                changed[k] = part
    return torch.cat(changed)
