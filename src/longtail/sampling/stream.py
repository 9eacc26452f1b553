"""From a strategy to indices: a pure function of seed and epoch, and its face for anyone's own `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from longtail.sampling.index import ClassIndex
from longtail.sampling.samplers import Sampling


def epoch_indices(
    sampling: Sampling, index: ClassIndex, *, seed: int, epoch: int, epochs: int, stream: int = 0
) -> Tensor:
    """Draw an epoch's indices from nothing but the arguments, so that resuming needs no saved state.

    Args:
        sampling: The strategy.
        index: The training set.
        seed: Seed of the training, at least 0.
        epoch: 0-based epoch in the span that the strategy covers.
        epochs: Length of that span.
        stream: Number of the stream, where a method draws several (two-branch methods) or has several stages.

    Returns:
        Positions in the training set, int64.

    Raises:
        ValueError: A number is negative.
    """
    if min(seed, epoch, stream) < 0:
        raise ValueError(
            f"epoch_indices: seed, epoch and stream must not be negative, got {seed}, {epoch} and {stream}"
        )
    words = np.random.SeedSequence(seed, spawn_key=(stream, epoch)).generate_state(1, np.uint64)
    return sampling.epoch(index, epoch, epochs, torch.Generator().manual_seed(int(words[0])))


class SamplerAdapter(Sampler[int]):
    """A strategy as a `torch.utils.data.Sampler`, for a plain `DataLoader`.

    Call `set_epoch` before every epoch. With several ranks, each takes every ``world_size``-th index: together they
    draw the epoch, and go on with its first indices until all ranks have as many, as torch's `DistributedSampler` does.
    With one batch more than the others a rank would wait for their gradients for ever.

    Args:
        sampling: The strategy.
        targets: Class of each training image, (N,).
        num_classes: Number of classes C.
        seed: Seed of the stream, the same on all ranks.
        epochs: Length of the training in epochs; only `ProgressiveSampling` asks for it.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        ValueError: The rank is outside 0..world_size-1, or the targets are not valid.
    """

    def __init__(
        self,
        sampling: Sampling,
        targets: Tensor | Sequence[int],
        num_classes: int,
        seed: int = 0,
        *,
        epochs: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"SamplerAdapter: rank must lie in 0..{world_size - 1}, got {rank}")
        self.sampling = sampling
        self.index = ClassIndex(targets, num_classes)
        self.seed = seed
        self.epochs = epochs
        self.rank = rank
        self.world_size = world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch, 0-based, the next iteration draws."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self.sampling.length(self.index) // self.world_size)

    def __iter__(self) -> Iterator[int]:
        indices = epoch_indices(self.sampling, self.index, seed=self.seed, epoch=self._epoch, epochs=self.epochs)
        own = torch.arange(self.rank, len(self) * self.world_size, self.world_size) % len(indices)
        return iter(indices[own].tolist())
