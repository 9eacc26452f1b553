"""Batches of a stage: gathered from memory, augmented as a whole, a pure function of (seed, stage, epoch, step).

Nothing is remembered between steps, so a resumed run draws exactly what the run that was stopped would have drawn,
and every process of a distributed run derives the same global batch and keeps its own share of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from longtail.errors import UsageError
from longtail.sampling import ClassIndex, epoch_indices
from longtail.training.recipe import Stage
from longtail.training.world import World
from longtail.types import Batch, Progress


def step_seed(seed: int, stage: int, epoch: int, step: int) -> int:
    """Return the random seed of one step."""
    return int(np.random.SeedSequence([seed, stage, epoch, step]).generate_state(1, np.uint64)[0] >> 1)


def check_batch_size(stage: Stage, images: int, world: World) -> None:
    """Raise UsageError where a stage's batch is larger than the set, or too small for batch statistics."""
    if stage.batch_size > images:
        raise UsageError(
            f"batch_size is {stage.batch_size}, but the training set has only {images} images",
            fix=f"use --batch-size {images} or less",
        )
    if stage.batch_size < 2 * world.size:
        raise UsageError(
            f"batch_size is {stage.batch_size}; batch statistics need 2 images or more in each of "
            f"{world.size} process(es)"
        )


@dataclass(frozen=True)
class Plan:
    """The index streams of one epoch.

    Attributes:
        streams: Indices of each stream, (N,), int64.
        steps: Steps of the epoch.
        images: Images of the first stream that are used.
    """

    streams: tuple[Tensor, ...]
    steps: int
    images: int


class StageLoader:
    """Index streams and batches of one stage.

    Args:
        images: Training images, uint8 (N, C, H, W), or cached features, float (N, d); on the training device.
        targets: Classes, (N,), on the training device.
        stage: The stage.
        number: 0-based number of the stage, part of every seed.
        num_classes: Number of classes C.
        seed: Training seed.
        world: The processes of the run.

    Raises:
        UsageError: The batch is larger than the training set, or smaller than two images for each process.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, stage: Stage, *, number: int, num_classes: int, seed: int, world: World
    ) -> None:
        check_batch_size(stage, len(targets), world)
        self._images = images
        self._targets = targets
        self._stage = stage
        self._number = number
        self._seed = seed
        self._world = world
        self._index = ClassIndex(targets.cpu(), num_classes)
        self._generator = torch.Generator(images.device)

    def plan(self, epoch: int) -> Plan:
        """Return the index streams of an epoch of the stage.

        A last batch with fewer than two images for each process is dropped: batch statistics need two.
        """
        stage = self._stage
        streams = [
            epoch_indices(
                sampling,
                self._index,
                seed=step_seed(self._seed, self._number, 0, 0),
                epoch=stage.first_epoch + epoch,
                epochs=stage.schedule.epochs,
                stream=k,
            )
            for k, sampling in enumerate(stage.sampling)
        ]
        length = min(map(len, streams))
        full, rest = divmod(length, stage.batch_size)
        if rest < 2 * self._world.size:
            rest = 0
        return Plan(
            streams=tuple(s.to(self._images.device) for s in streams),
            steps=full + bool(rest),
            images=full * stage.batch_size + rest,
        )

    def batches(self, plan: Plan, epoch: int, step: int) -> tuple[tuple[Batch, ...], float]:
        """Return this process's share of a step's batches, and its loss's weight.

        The weight makes the mean over processes of weighted mean losses the mean over the global batch.
        """
        start = step * self._stage.batch_size
        stop = min(start + self._stage.batch_size, plan.images)
        self._generator.manual_seed(step_seed(self._seed, self._number, 1 + epoch, step))
        batches = tuple(self._batch(stream[start:stop]) for stream in plan.streams)
        if self._stage.mixing is not None:
            progress = Progress(self._stage.first_epoch + epoch, self._stage.schedule.epochs, step, plan.steps)
            batches = self._stage.mixing.mix(batches, self._generator, progress)
        shares = tuple(self._share(batch) for batch in batches)
        weight = len(shares[0]) * self._world.size / (stop - start)
        return shares, weight

    def _batch(self, indices: Tensor) -> Batch:
        images = self._images.index_select(0, indices)
        if not self._stage.cached_features:
            images = self._stage.augment(images, self._generator)
        return Batch(images, self._targets.index_select(0, indices), indices)

    def _share(self, batch: Batch) -> Batch:
        if self._world.size == 1:
            return batch
        share = self._world.share
        return replace(
            batch,
            images=share(batch.images),
            targets=share(batch.targets),
            indices=share(batch.indices),
            mixed_targets=None if batch.mixed_targets is None else share(batch.mixed_targets),
            lam=None if batch.lam is None else share(batch.lam),
        )
