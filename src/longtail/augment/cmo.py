"""CMO: rare foregrounds on the backgrounds of frequent classes (Park et al., CVPR 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from longtail.augment.cutmix import check_alpha_and_prob, draw_masks, paste
from longtail.augment.mixup import check_mixable
from longtail.augment.transforms import uniform
from longtail.types import Batch, Progress


@dataclass(frozen=True)
class CMO:
    """CutMix whose rectangle comes from a second, re-balanced stream: the tail's objects in the head's contexts.

    One rectangle a batch; image k of the second stream goes onto image k of the first. The loss is mixed by area.

    Args:
        alpha: Parameter of the Beta distribution of the area that stays; 1 in the paper.
        prob: Probability that a batch is mixed; 0.5 in the official code.
        plain_start: Share of the epochs at the start without mixing, rounded up to whole epochs; 0.02 is the official
            4 of 200.
        plain_end: The same at the end; 0.015 is the official 3 of 200.

    Raises:
        ValueError: If ``alpha`` is not above 0, or another argument not in 0..1.

    Source: github.com/naver-ai/cmo, cifar_train.py.
    """

    alpha: float = 1.0
    prob: float = 0.5
    plain_start: float = 0.02
    plain_end: float = 0.015

    def __post_init__(self) -> None:
        check_alpha_and_prob(self.alpha, self.prob, "CMO")
        if not (0 <= self.plain_start <= 1 and 0 <= self.plain_end <= 1):
            raise ValueError(
                f"CMO: plain_start and plain_end must lie in 0..1, got {self.plain_start} and {self.plain_end}"
            )

    def __call__(self, background: Batch, foreground: Batch, generator: torch.Generator) -> Batch:
        """Return the background batch with patches of the foreground batch; the given ones stay as they are.

        Args:
            background: Images (B, C, H, W), floating point, not mixed yet; its targets and indices are the result's.
            foreground: As many images; they become the result's ``mixed_targets``.
            generator: Where the random draws come from; on the images' device or the CPU.

        Raises:
            ValueError: If the batches differ in shape, are integers or mixed already.
        """
        for batch in (background, foreground):
            check_mixable(batch, "CMO")
        if background.images.shape != foreground.images.shape:
            raise ValueError(
                "CMO: background and foreground must have one shape, "
                f"got {tuple(background.images.shape)} and {tuple(foreground.images.shape)}"
            )
        height, width = background.images.shape[-2:]
        mask = draw_masks(1, self.alpha, height, width, generator)
        mask = mask & (uniform((1, 1, 1, 1), generator, mask.device) < self.prob)
        return paste(background, foreground.images, foreground.targets, mask)

    def mix(self, batches: tuple[Batch, ...], generator: torch.Generator, progress: Progress) -> tuple[Batch, ...]:
        """Mix the second stream into the first, which alone is left; outside the window the first as it is.

        Raises:
            ValueError: If there are not two streams.
        """
        if len(batches) != 2:
            raise ValueError(f"CMO: needs two streams, backgrounds and foregrounds, got {len(batches)}")
        if not self.is_on(progress):
            return (batches[0],)
        return (self(*batches, generator),)

    def is_on(self, progress: Progress) -> bool:
        """Whether batches of this epoch are mixed: at 200 epochs, epochs 4 to 196, counted from 0."""
        first, last = (_epochs(share, progress.epochs) for share in (self.plain_start, self.plain_end))
        return first <= progress.epoch < progress.epochs - last


def _epochs(share: float, epochs: int) -> int:
    # The small number keeps 0.02 * 150 = 3.0000000000000004 and its like from becoming 4.
    return math.ceil(share * epochs - 1e-9)
