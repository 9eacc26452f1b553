"""Batches of a stage: gathered from memory, augmented as a whole, a pure function of (seed, stage, epoch, step).

Nothing is remembered between steps, so a resumed run draws exactly what the run that was stopped would have drawn.
Every process of a distributed run derives the same index streams, takes its share of each batch, and gathers, augments
and mixes that alone, with draws of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from longtail.augment import Compose
from longtail.errors import UsageError
from longtail.sampling import ClassIndex, epoch_indices
from longtail.training.recipe import Stage
from longtail.training.world import World
from longtail.types import Batch, Progress

SMALLEST_BATCH = 0.25
"""Share of the batch size that a last batch needs."""


def step_seed(seed: int, stage: int, epoch: int, step: int, *more: int) -> int:
    """Return the random seed of one step; further numbers, zeros too, make it that of another stream of draws."""
    return int(np.random.SeedSequence([seed, stage, epoch, step, *more]).generate_state(1, np.uint64)[0] >> 1)


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


def placed(images: Tensor, device: torch.device) -> Tensor:
    """Return the training images on the device, or where they are if they would fill half of its free memory.

    On a CPU nothing is copied, so a set that is mapped from a file stays there.
    """
    if device.type == "cuda" and images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        return images.to(device)
    return images


@dataclass(frozen=True)
class Plan:
    """The index streams of one epoch.

    Attributes:
        streams: Indices of each stream, (N,), int64.
        dev: Indices into the development set of each of its streams, (steps * dev_batch_size,), int64.
        steps: Steps of the epoch.
        images: Images of the first stream that are used.
    """

    streams: tuple[Tensor, ...]
    dev: tuple[Tensor, ...]
    steps: int
    images: int


class StageLoader:
    """Index streams and batches of one stage.

    Args:
        images: Training images, uint8 (N, C, H, W), or cached features, float (N, d) or (N, E, d); on the
            training device, or in host memory where they do not fit there: then each batch is copied.
        targets: Classes, (N,), on the training device.
        stage: The stage.
        number: 0-based number of the stage, part of every seed.
        num_classes: Number of classes C.
        seed: Training seed.
        world: The processes of the run.
        dev: Images and classes of the development set, on the training device; for a stage that draws from it.

    Raises:
        UsageError: The batch is larger than the training set, or smaller than two images for each process.
        ValueError: The stage draws from a development set and there is none.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        stage: Stage,
        *,
        number: int,
        num_classes: int,
        seed: int,
        world: World,
        dev: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        check_batch_size(stage, len(targets), world)
        self._images = images
        self._targets = targets
        self._dev_index = None
        if stage.dev:
            if dev is None:
                raise ValueError(f"stage {stage.name!r} draws from a development set, and there is none")
            self._dev_images, self._dev_targets = dev
            self._dev_index = ClassIndex(self._dev_targets.cpu(), num_classes)
            self._dev_batch_size = min(stage.dev_batch_size or stage.batch_size, len(self._dev_targets))
        self._stage = stage
        self._number = number
        self._seed = seed
        self._world = world
        self._index = ClassIndex(targets.cpu(), num_classes)
        self._device = targets.device
        self._generator = torch.Generator(self._device)
        self._in_host_memory = images.device != self._device

    def plan(self, epoch: int) -> Plan:
        """Return the index streams of an epoch of the stage.

        A last batch of less than a quarter of the others is dropped: its images would count several times as much as
        theirs, and its batch statistics would be the last that the running averages see. Whatever else is left trains;
        a set of less than one batch is refused elsewhere.
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
        if rest < max(stage.batch_size * SMALLEST_BATCH, 2 * self._world.size):
            rest = 0
        steps = full + bool(rest)
        return Plan(
            streams=tuple(s.pin_memory() if self._in_host_memory else s.to(self._device) for s in streams),
            dev=tuple(self._dev_stream(k, epoch, steps).to(self._device) for k in range(len(stage.dev))),
            steps=steps,
            images=full * stage.batch_size + rest,
        )

    def _dev_stream(self, k: int, epoch: int, steps: int) -> Tensor:
        """Return as many development indices as an epoch needs: the set is small, so that it is drawn several times."""
        stage, needed = self._stage, steps * self._dev_batch_size
        assert self._dev_index is not None
        rounds = -(-needed // stage.dev[k].length(self._dev_index))
        drawn = [
            epoch_indices(
                stage.dev[k],
                self._dev_index,
                seed=step_seed(self._seed, self._number, 0, 0),
                epoch=(stage.first_epoch + epoch) * rounds + again,
                epochs=stage.schedule.epochs * rounds,
                stream=len(stage.sampling) + k,
            )
            for again in range(rounds)
        ]
        return torch.cat(drawn)[:needed]

    def batches(self, plan: Plan, epoch: int, step: int) -> tuple[tuple[Batch, ...], float]:
        """Return this process's share of a step's batches, and its loss's weight.

        The weight makes the mean over processes of weighted mean losses the mean over the global batch.
        """
        stage, share = self._stage, self._world.share
        start = step * stage.batch_size
        stop = min(start + stage.batch_size, plan.images)
        self._generator.manual_seed(step_seed(self._seed, self._number, 1 + epoch, step) + self._world.rank)
        drawn = [share(stream[start:stop]) for stream in plan.streams]
        batches = tuple(self._batch(indices, stage.augment) for indices in drawn)
        views = [self._batch(drawn[0], transforms) for transforms in stage.views]
        if stage.mixing is not None:
            progress = Progress(stage.first_epoch + epoch, stage.schedule.epochs, step, plan.steps)
            batches = stage.mixing.mix(batches, self._generator, progress)
        weight = len(batches[0]) * self._world.size / (stop - start)
        return (*batches, *views, *self._dev_batches(plan, step)), weight

    def _batch(self, indices: Tensor, transforms: Compose) -> Batch:
        images = self._gather(indices)
        if not self._stage.cached_features:
            images = transforms(images, self._generator)
        indices = indices.to(self._device, non_blocking=True)
        return Batch(images, self._targets.index_select(0, indices), indices)

    def _gather(self, indices: Tensor) -> Tensor:
        """Return the images at indices on the training device; from host memory without waiting for the device."""
        if not self._in_host_memory:
            return self._images.index_select(0, indices)
        shape = (len(indices), *self._images.shape[1:])
        batch = torch.empty(shape, dtype=self._images.dtype, pin_memory=True)
        torch.index_select(self._images, 0, indices, out=batch)
        return batch.to(self._device, non_blocking=True)

    def _dev_batches(self, plan: Plan, step: int) -> list[Batch]:
        drawn = [stream[step * self._dev_batch_size : (step + 1) * self._dev_batch_size] for stream in plan.dev]
        return [
            Batch(
                self._stage.augment(self._dev_images.index_select(0, indices), self._generator),
                self._dev_targets.index_select(0, indices),
                indices,
            )
            for indices in map(self._world.share, drawn)
        ]
