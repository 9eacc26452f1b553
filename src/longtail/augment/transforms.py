"""What a transform is, how transforms are chained, and the step from pixels to network input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class Transform(Protocol):
    """Changes a batch of images; each image gets its own random draw.

    All draws come from the generator, so the same generator state gives the same batch. The generator lives on the
    images' device or on the CPU; nothing waits for the device.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed batch (B, C, H, W); the given one stays as it is.

        Args:
            images: Batch (B, C, H, W), uint8 in 0..255 or floating point.
            generator: Where the random draws come from.

        Raises:
            ValueError: If ``images`` is not such a batch.
        """
        ...


@dataclass(frozen=True)
class Compose:
    """Applies transforms one after the other.

    Args:
        transforms: The transforms in order; none at all leaves the batch as it is.
    """

    transforms: Sequence[Transform]

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch (B, C, H, W) after all transforms."""
        for transform in self.transforms:
            images = transform(images, generator)
        return images


@dataclass(frozen=True)
class Normalize:
    """Turns pixels into network input: ``(pixel - mean) / std`` per channel, float32, channels_last.

    Args:
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel, of pixels in 0..1.

    Raises:
        ValueError: If the two differ in length or a standard deviation is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise ValueError(
                f"Normalize: needs one mean and one std above 0 per channel, got mean {self.mean} and std {self.std}"
            )

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalise a batch.

        Args:
            images: Batch (B, C, H, W), uint8 in 0..255 or floating point in 0..1.
            generator: Not used; there so that this is a :class:`Transform`.

        Returns:
            The batch, float32, channels_last.

        Raises:
            ValueError: If ``images`` is not a batch or has another number of channels.
        """
        check_images(images, "Normalize")
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"Normalize: the mean has {len(self.mean)} channels, the images have {images.shape[1]} "
                f"(shape {tuple(images.shape)})"
            )
        scale, shift = _scale_and_shift(self.mean, self.std, 255 if images.dtype == torch.uint8 else 1, images.device)
        normalised = torch.addcmul(shift, images.to(torch.float32), scale)
        return normalised.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=32)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], top: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the factors of ``pixel * scale + shift``; kept, because copying them to a GPU would wait for it."""
    std64 = torch.tensor(std, dtype=torch.float64)
    scale = 1 / (top * std64)
    shift = -torch.tensor(mean, dtype=torch.float64) / std64
    return tuple(t.float().view(1, -1, 1, 1).to(device) for t in (scale, shift))  # type: ignore[return-value]


def check_images(images: Tensor, name: str) -> None:
    """Raise ValueError unless ``images`` is a batch that the transform ``name`` can change."""
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise ValueError(
            f"{name}: needs images (B, C, H, W), uint8 or floating point, got {images.dtype} {tuple(images.shape)}"
        )


def check_pixels(images: Tensor, name: str) -> None:
    """Raise ValueError unless ``images`` is a batch of uint8 that the transform ``name`` can change."""
    check_images(images, name)
    if images.dtype != torch.uint8:
        raise ValueError(f"{name}: needs uint8 images, got {images.dtype}; put it before Normalize")


def uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw from U[0, 1) on the generator's device and move the result to ``device`` without waiting for it."""
    return torch.rand(shape, generator=generator, device=generator.device).to(device, non_blocking=True)


def integers(high: int, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw from 0..high-1 on the generator's device and move the result to ``device`` without waiting for it."""
    return torch.randint(high, shape, generator=generator, device=generator.device).to(device, non_blocking=True)
