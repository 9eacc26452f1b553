"""Mixup: convex combinations of pairs of images (Zhang et al., ICLR 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from longtail.types import Batch, Progress


class Mixing(Protocol):
    """Mixes the images of a step; a frozen dataclass, so that its text says all that a configuration needs."""

    def mix(self, batches: tuple[Batch, ...], generator: torch.Generator, progress: Progress) -> tuple[Batch, ...]:
        """Return the mixed batches, one per index stream that the objective shall see.

        Args:
            batches: One batch per index stream, normalised, not mixed.
            generator: Where the random draws come from.
            progress: The place in the schedule, for mixing that is not on all the time.
        """
        ...


@dataclass(frozen=True)
class Mixup:
    """Mixes each image with another one of the batch: ``lam * x_i + (1 - lam) * x_j``, lam from Beta(alpha, alpha).

    The partners are a random permutation of the batch. The loss is mixed with the same ``lam``, which becomes the
    batch's ``lam`` and ``mixed_targets``.

    Args:
        alpha: Parameter of the Beta distribution; 1 for CIFAR in MiSLAS, 0.2 on large sets. 0 or less mixes nothing.
        per_batch: Draw one ``lam`` for the whole batch, as the papers' codes do, instead of one per image.

    Raises:
        ValueError: If ``alpha`` is not finite.
    """

    alpha: float = 1.0
    per_batch: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.alpha):
            raise ValueError(f"Mixup: alpha must be finite, got {self.alpha}")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the mixed batch; the given one stays as it is.

        Args:
            batch: Images (B, C, H, W), floating point, that are not mixed yet.
            generator: Where the random draws come from; on the images' device or the CPU.

        Raises:
            ValueError: If the images are integers or mixed already.
        """
        check_mixable(batch, "Mixup")
        if self.alpha <= 0:
            return batch
        size, device = len(batch), batch.images.device
        lam = beta(self.alpha, 1 if self.per_batch else size, generator).to(device, non_blocking=True).expand(size)
        partners = torch.randperm(size, generator=generator, device=generator.device).to(device, non_blocking=True)
        weight = lam.to(batch.images.dtype).view(-1, 1, 1, 1)
        images = torch.lerp(batch.images[partners], batch.images, weight)
        return replace(batch, images=images, mixed_targets=batch.targets[partners], lam=lam)

    def mix(self, batches: tuple[Batch, ...], generator: torch.Generator, progress: Progress) -> tuple[Batch, ...]:
        """Mix every stream's batch within itself; the schedule does not matter."""
        return tuple(self(batch, generator) for batch in batches)


def check_mixable(batch: Batch, name: str) -> None:
    """Raise ValueError unless a batch holds normalised images that are not mixed yet."""
    if batch.mixed_targets is not None:
        raise ValueError(f"{name}: the batch is mixed already; use one mixing step")
    if not batch.images.is_floating_point():
        raise ValueError(f"{name}: needs floating-point images (normalise first), got {batch.images.dtype}")


def beta(alpha: float, size: int, generator: torch.Generator) -> Tensor:
    """Draw ``size`` values from Beta(alpha, alpha): (size,), float32, on the generator's device."""
    # torch.distributions takes no generator; this is the sampler underneath it, in float64 so that small alphas do
    # not underflow to 0 / 0.
    shape = torch.full((2, size), alpha, dtype=torch.float64, device=generator.device)
    first, second = torch._standard_gamma(shape, generator=generator)
    draws: Tensor = first / (first + second)
    return draws.float()
