"""Images of some classes only: what an expert for a group of classes is shown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.sampling.index import ClassIndex


@dataclass(frozen=True)
class SubsetSampling:
    """Every image of some classes in random order, over and over until the epoch is full.

    Args:
        classes: The classes.
        images: Images of an epoch; None: as many as the classes have.

    Raises:
        ValueError: There is no class, or ``images`` is below 1.
    """

    classes: tuple[int, ...]
    images: int | None = None

    def __post_init__(self) -> None:
        if not self.classes or (self.images is not None and self.images < 1):
            raise ValueError(
                f"SubsetSampling: needs a class and an image at least, got classes {self.classes}, images {self.images}"
            )

    def length(self, targets_index: ClassIndex) -> int:
        """Count the images of an epoch."""
        return self._available(targets_index) if self.images is None else self.images

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch; see `Sampling`.

        Raises:
            ValueError: The classes have no image.
        """
        available, length = self._available(targets_index), self.length(targets_index)
        if not available:
            raise ValueError(f"SubsetSampling: the classes {self.classes} have no image")
        chosen = torch.zeros(targets_index.num_classes, dtype=torch.bool)
        chosen[list(self.classes)] = True
        members = chosen[targets_index.targets].nonzero().flatten()
        passes = [torch.randperm(available, generator=generator) for _ in range(-(-length // available))]
        return members[torch.cat(passes)[:length]]

    def _available(self, targets_index: ClassIndex) -> int:
        return int(targets_index.counts[list(self.classes)].sum())
