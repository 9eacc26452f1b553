"""Vectorised draws that the samplers share."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.sampling.index import ClassIndex


def draw_images(index: ClassIndex, probabilities: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Draw a class by ``probabilities``, then one of its images uniformly; with replacement.

    Args:
        index: The training set.
        probabilities: Of the classes, (C,), float64; ignored for classes without an image.
        draws: How many images.
        generator: Source of randomness, on the CPU.

    Returns:
        Positions in the training set, (draws,), int64.
    """
    present = index.counts.nonzero().flatten()
    edges = probabilities[present].cumsum(0)
    points = torch.rand(draws, dtype=torch.float64, generator=generator) * edges[-1]
    # right=True skips classes of probability 0; the clamp is for a product that rounds up to the last edge.
    classes = present[torch.searchsorted(edges, points, right=True).clamp_(max=len(present) - 1)]
    counts = index.counts[classes]
    within = (torch.rand(draws, dtype=torch.float64, generator=generator) * counts).long()
    return index.order[index.offsets[classes] + torch.minimum(within, counts - 1)]


def shuffled_within(groups: Tensor, generator: torch.Generator) -> Tensor:
    """Positions sorted by group, in random order inside each group; (M,) int64 for ``groups`` (M,)."""
    shuffled = torch.randperm(len(groups), generator=generator)
    return shuffled[groups[shuffled].argsort(stable=True)]
