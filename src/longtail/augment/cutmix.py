"""CutMix: a rectangle of another image in place of the image's own (Yun et al., ICCV 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longtail.augment.mixup import beta, check_mixable
from longtail.augment.transforms import integers, uniform
from longtail.types import Batch, Progress


def cut_boxes(lam: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Return the rectangle around each centre that covers about ``1 - lam`` of the image.

    Its sides are ``sqrt(1 - lam)`` of the image's, rounded down, and half a side, rounded down, reaches to either side
    of the centre: an odd side loses a pixel, and a side of one pixel is empty, as in the official code. What reaches
    over the edge is cut off.

    Args:
        lam: Share of the image that is to stay, (K,), in [0, 1].
        rows: Row of each centre, (K,), whole numbers.
        columns: Column of each centre, (K,), whole numbers.
        height: Of the images.
        width: Of the images.

    Returns:
        Top, left, bottom and right, (K,) int64 each; bottom and right are not part of the rectangle.
    """
    side = torch.sqrt(1 - lam.double())
    half_height, half_width = ((side * length).long() // 2 for length in (height, width))
    return (
        (rows - half_height).clamp(0, height),
        (columns - half_width).clamp(0, width),
        (rows + half_height).clamp(0, height),
        (columns + half_width).clamp(0, width),
    )


def draw_masks(boxes: int, alpha: float, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw rectangles with lam from Beta(alpha, alpha) and uniform centres: (boxes, 1, H, W), true inside."""
    device = generator.device
    lam = beta(alpha, boxes, generator)
    rows = integers(height, (boxes,), generator, device)
    columns = integers(width, (boxes,), generator, device)
    edges = cut_boxes(lam, rows, columns, height, width)
    top, left, bottom, right = (edge.view(-1, 1, 1, 1) for edge in edges)
    y = torch.arange(height, device=device).view(-1, 1)
    x = torch.arange(width, device=device)
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def paste(batch: Batch, images: Tensor, targets: Tensor, mask: Tensor) -> Batch:
    """Put other images into the rectangles of a batch; lam becomes the share of pixels that stay, exactly.

    Args:
        batch: The canvas, images (B, C, H, W).
        images: What is pasted, (B, C, H, W).
        targets: Its classes, (B,).
        mask: True where it is pasted, (1 or B, 1, H, W), on any device.
    """
    mask = mask.to(batch.images.device, non_blocking=True)
    lam = 1 - mask.float().mean((1, 2, 3))
    mixed = torch.where(mask, images, batch.images)
    return replace(batch, images=mixed, mixed_targets=targets, lam=lam.expand(len(batch)))


def check_alpha_and_prob(alpha: float, prob: float, name: str) -> None:
    """Raise ValueError unless alpha is above 0 and prob in 0..1."""
    if not 0 < alpha < float("inf"):
        raise ValueError(f"{name}: alpha must be a finite number above 0, got {alpha}")
    if not 0 <= prob <= 1:
        raise ValueError(f"{name}: prob must lie in 0..1, got {prob}")


@dataclass(frozen=True)
class CutMix:
    """Pastes a rectangle of another image of the batch; the loss is mixed by area.

    The partners are a random permutation of the batch. A batch that is left alone (see ``prob``) comes back with
    ``lam`` 1, so that nothing waits for the device to know which it is.

    Args:
        alpha: Parameter of the Beta distribution of the area that stays; 1 in the paper.
        prob: Probability that a batch is mixed; 0.5 in the paper's CIFAR code.
        per_image: Draw a rectangle for every image instead of one for the batch, as the papers' codes do.

    Raises:
        ValueError: If ``alpha`` is not above 0 or ``prob`` not in 0..1.

    Source: github.com/clovaai/CutMix-PyTorch (box), github.com/naver-ai/cmo (the same box on CIFAR).
    """

    alpha: float = 1.0
    prob: float = 0.5
    per_image: bool = False

    def __post_init__(self) -> None:
        check_alpha_and_prob(self.alpha, self.prob, "CutMix")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the mixed batch; the given one stays as it is.

        Args:
            batch: Images (B, C, H, W), floating point, that are not mixed yet.
            generator: Where the random draws come from; on the images' device or the CPU.

        Raises:
            ValueError: If the images are integers or mixed already.
        """
        check_mixable(batch, "CutMix")
        size, (height, width) = len(batch), batch.images.shape[-2:]
        mask = draw_masks(size if self.per_image else 1, self.alpha, height, width, generator)
        mask = mask & (uniform((1, 1, 1, 1), generator, mask.device) < self.prob)
        partners = torch.randperm(size, generator=generator, device=generator.device)
        partners = partners.to(batch.images.device, non_blocking=True)
        return paste(batch, batch.images[partners], batch.targets[partners], mask)

    def mix(self, batches: tuple[Batch, ...], generator: torch.Generator, progress: Progress) -> tuple[Batch, ...]:
        """Mix every stream's batch within itself; the schedule does not matter."""
        return tuple(self(batch, generator) for batch in batches)
