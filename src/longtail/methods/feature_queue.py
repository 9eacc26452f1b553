"""The latest features and their classes: keys of instance discrimination, memory of a classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The latest K features and their classes; first in, first out. All of it is state.

    It begins with random features of length 1 and of no class (-1), which is nobody's own.

    Args:
        size: K.
        width: Length d of a feature.
    """

    features: Tensor
    targets: Tensor
    position: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        drawn = torch.randn(size, width, generator=torch.Generator().manual_seed(0))
        self.register_buffer("features", F.normalize(drawn, dim=1))
        self.register_buffer("targets", torch.full((size,), -1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, features: Tensor, targets: Tensor) -> None:
        """Put features (B, d) and their classes (B,) in the place of the oldest; of more than K the last K stay.

        Those of no class (-1) are left out. Nothing waits for the device to say how many they are.
        """
        size = len(self.targets)
        order = (targets >= 0).to(torch.int8).argsort(stable=True)[-size:]  # what stays comes last
        features, targets = features[order].to(self.features.dtype), targets[order]
        stays = targets >= 0
        slots = (self.position + stays.cumsum(0) - 1) % size
        # What is left out has the slots that follow, and leaves them as they are.
        count = stays.sum()
        slots = torch.where(stays, slots, (self.position + count + (~stays).cumsum(0) - 1) % size)
        self.features.index_copy_(0, slots, torch.where(stays.unsqueeze(1), features, self.features[slots]))
        self.targets.index_copy_(0, slots, torch.where(stays, targets, self.targets[slots]))
        self.position.copy_((self.position + count) % size)
