"""The two records that travel between the parts: a batch of images and the place in the schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch of augmented images.

    Attributes:
        images: Normalised images, (B, C, H, W), float, channels_last.
        targets: Class of each image, (B,), int64.
        indices: Position of each image in the training set, (B,), int64.
        mixed_targets: Class of the image mixed in, (B,), int64; None where nothing is mixed.
        lam: Share of the first image in each mix, (B,), float32 in [0, 1]; None where nothing is mixed. The loss of a
            mixed batch is ``lam * loss(targets) + (1 - lam) * loss(mixed_targets)``.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    mixed_targets: Tensor | None = None
    lam: Tensor | None = None

    @classmethod
    def of(cls, images: Tensor, targets: Tensor) -> Self:
        """Return a batch of anyone's images (B, C, H, W) and classes (B,), numbered as they stand."""
        return cls(images, targets, torch.arange(len(targets), device=targets.device))

    def __len__(self) -> int:
        return len(self.targets)

    def labels(self) -> tuple[Tensor, Tensor | None]:
        """Return the classes to learn and what each counts, for losses that weigh samples.

        Returns:
            ``targets`` (B,) and None; of a mixed batch those of both images, (2 B,), for logits stacked twice, and
            their shares lam and 1 - lam.
        """
        if self.lam is None or self.mixed_targets is None:
            return self.targets, None
        return torch.cat([self.targets, self.mixed_targets]), torch.cat([self.lam, 1 - self.lam])


@dataclass(frozen=True)
class Progress:
    """The place of a step in its stage's schedule.

    Attributes:
        epoch: 0-based epoch within the span that the schedule covers (stages that share one schedule count on).
        epochs: Length of that span in epochs.
        step: 0-based step within the epoch.
        steps: Steps in the epoch.
        lr: Learning rate of the step, for objectives that take a step ahead of the optimiser.
    """

    epoch: int
    epochs: int
    step: int = 0
    steps: int = 1
    lr: float = 0.0

    @property
    def fraction(self) -> float:
        """Share of the span that is done, in [0, 1)."""
        return (self.epoch + self.step / self.steps) / self.epochs
