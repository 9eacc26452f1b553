"""The sampling strategies: frozen settings whose ``epoch`` is a pure function of the generator it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from longtail.sampling.draws import draw_images, shuffled_within
from longtail.sampling.index import ClassIndex
from longtail.sampling.probabilities import (
    class_probabilities,
    effective_number_probabilities,
    progressive_probabilities,
    reverse_probabilities,
)


class Sampling(Protocol):
    """Says which training images an epoch shows, in which order."""

    def length(self, targets_index: ClassIndex) -> int:
        """Count the images of an epoch."""
        ...

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch.

        Args:
            targets_index: The training set.
            epoch: 0-based epoch in the span that the strategy covers.
            epochs: Length of that span.
            generator: Source of randomness, on the CPU; the only one.

        Returns:
            Positions in the training set, (length,), int64.
        """
        ...


@dataclass(frozen=True)
class InstanceSampling:
    """Every image once, in random order: plain training."""

    def length(self, targets_index: ClassIndex) -> int:
        """N, the size of the training set."""
        return len(targets_index)

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch; see `Sampling`."""
        return torch.randperm(len(targets_index), generator=generator)


class _ClassThenImage:
    """N draws with replacement: a class by its probability, then an image of it uniformly."""

    def length(self, targets_index: ClassIndex) -> int:
        """N, the size of the training set."""
        return len(targets_index)

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch; see `Sampling`."""
        probabilities = self.probabilities(targets_index.counts, epoch, epochs)
        return draw_images(targets_index, probabilities, len(targets_index), generator)

    def probabilities(self, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """Class probabilities of the epoch, (C,), float64."""
        raise NotImplementedError


@dataclass(frozen=True)
class PowerSampling(_ClassThenImage):
    """Class j with probability in proportion to ``n_j ** q`` (Kang et al., ICLR 2020).

    Args:
        q: 1 is instance-balanced, 0 class-balanced, 1/2 square-root sampling.

    Raises:
        ValueError: ``q`` is not finite.
    """

    q: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.q):
            raise ValueError(f"PowerSampling: q must be finite, got {self.q}")

    def probabilities(self, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """Class probabilities; see `class_probabilities`."""
        return class_probabilities(class_counts, self.q)


SquareRootSampling = partial(PowerSampling, q=0.5)
"""Class j with probability in proportion to the square root of ``n_j`` (Kang et al., ICLR 2020)."""


@dataclass(frozen=True)
class ClassBalancedSampling(_ClassThenImage):
    """Every class equally often (Kang et al., ICLR 2020; the second stage of cRT and DRS)."""

    def probabilities(self, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """The same for every class that has an image."""
        return class_probabilities(class_counts, 0)


@dataclass(frozen=True)
class ProgressiveSampling(_ClassThenImage):
    """Instance-balanced in the first epoch, class-balanced in the last (Kang et al., ICLR 2020)."""

    def probabilities(self, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """Class probabilities at ``epoch / (epochs - 1)``; see `progressive_probabilities`.

        Raises:
            ValueError: The epoch is outside the span.
        """
        if not 0 <= epoch < epochs:
            raise ValueError(
                f"ProgressiveSampling: epoch {epoch} is outside 0..{epochs - 1}; epochs must be the whole span"
            )
        return progressive_probabilities(class_counts, epoch / max(1, epochs - 1))


@dataclass(frozen=True)
class DeferredSampling:
    """One strategy in the first epochs of the span, another one after them (deferred re-sampling within one stage).

    Args:
        early: Up to the switch.
        late: From the switch on.
        switch: 0-based epoch of the switch.
    """

    early: Sampling
    late: Sampling
    switch: int

    def length(self, targets_index: ClassIndex) -> int:
        """Count the images of an epoch.

        Raises:
            ValueError: The two strategies have epochs of different lengths.
        """
        length, other = (sampling.length(targets_index) for sampling in (self.early, self.late))
        if length != other:
            raise ValueError(f"DeferredSampling: epochs of {length} and {other} images; both must have one length")
        return length

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch; see `Sampling`."""
        return (self.early if epoch < self.switch else self.late).epoch(targets_index, epoch, epochs, generator)


@dataclass(frozen=True)
class ReverseSampling(_ClassThenImage):
    """Class j with probability in proportion to ``1 / n_j``: BBN's second branch (Zhou et al., CVPR 2020)."""

    def probabilities(self, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """Class probabilities; see `reverse_probabilities`."""
        return reverse_probabilities(class_counts)


@dataclass(frozen=True)
class EffectiveNumberSampling(_ClassThenImage):
    """Images weighted by their class's inverse effective number (Cui et al., CVPR 2019; LDAM-DRW's "Resample").

    Args:
        beta: 0 is instance-balanced, towards 1 class-balanced; LDAM-DRW uses 0.9999.

    Raises:
        ValueError: ``beta`` is outside 0..1.
    """

    beta: float = 0.9999

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"EffectiveNumberSampling: beta must lie in 0..1, got {self.beta}")

    def probabilities(self, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """Class probabilities; see `effective_number_probabilities`."""
        return effective_number_probabilities(class_counts, self.beta)


@dataclass(frozen=True)
class OverSampling:
    """Every class repeated up to the largest: each image equally often, the remainder drawn without replacement."""

    def length(self, targets_index: ClassIndex) -> int:
        """The largest class times the number of classes that have images."""
        counts = targets_index.counts
        return int(counts.max()) * int((counts > 0).sum())

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch; see `Sampling`."""
        shuffled, rank, count = _ranked(targets_index, generator)
        largest = targets_index.counts.max()
        repeats = largest // count + (rank < largest % count)
        chosen = shuffled.repeat_interleave(repeats)
        return chosen[torch.randperm(len(chosen), generator=generator)]


@dataclass(frozen=True)
class UnderSampling:
    """Every class cut to the smallest that has images, without replacement; another draw every epoch."""

    def length(self, targets_index: ClassIndex) -> int:
        """The smallest class times the number of classes that have images."""
        counts = targets_index.counts[targets_index.counts > 0]
        return int(counts.min()) * len(counts)

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch; see `Sampling`."""
        shuffled, rank, count = _ranked(targets_index, generator)
        chosen = shuffled[rank < count.min()]
        return chosen[torch.randperm(len(chosen), generator=generator)]


def _ranked(index: ClassIndex, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images sorted by class and shuffled inside it, with each one's rank in its class and the class's size."""
    shuffled = shuffled_within(index.targets, generator)
    classes = index.targets[shuffled]
    return shuffled, torch.arange(len(shuffled)) - index.offsets[classes], index.counts[classes]


@dataclass(frozen=True)
class CyclicClassSampling:
    """Class after class in a random cycle, a few images each from the class's own shuffled cycle (Kang et al.; MiSLAS).

    A class comes again only when all others had their turn, and an image only when all others of its class had theirs.
    The papers' code makes an epoch of ``C * n_max`` images; here it is cut to N, as with the other strategies, and the
    cycles start anew with every epoch.

    Args:
        samples_per_class: Images in a row of one class; the papers use 4.

    Raises:
        ValueError: ``samples_per_class`` is below 1.

    Source: facebookresearch/classifier-balancing, ClassAwareSampler.
    """

    samples_per_class: int = 4

    def __post_init__(self) -> None:
        if self.samples_per_class < 1:
            raise ValueError(f"CyclicClassSampling: samples_per_class must be at least 1, got {self.samples_per_class}")

    def length(self, targets_index: ClassIndex) -> int:
        """N, the size of the training set."""
        return len(targets_index)

    def epoch(self, targets_index: ClassIndex, epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        """Draw one epoch; see `Sampling`."""
        present = targets_index.counts.nonzero().flatten()
        turns = math.ceil(len(targets_index) / self.samples_per_class)
        rounds = math.ceil(turns / len(present))
        # One row a round: every class has one turn in it, so a class's k-th turn is in round k.
        cycle = torch.rand(rounds, len(present), dtype=torch.float64, generator=generator).argsort(dim=1)
        classes = present[cycle].flatten()[:turns]
        stream, starts = _class_cycles(targets_index, rounds * self.samples_per_class, generator)
        first = starts[classes] + torch.arange(turns) // len(present) * self.samples_per_class
        picks = first[:, None] + torch.arange(self.samples_per_class)
        return stream[picks.flatten()[: len(targets_index)]]


def _class_cycles(index: ClassIndex, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shuffle each class over and over until it is ``length`` long; the classes in turn, and where each starts."""
    passes = -(-length // index.counts.clamp(min=1)) * (index.counts > 0)
    per_image = passes[index.targets[index.order]]
    images = index.order.repeat_interleave(per_image)
    firsts = (per_image.cumsum(0) - per_image).repeat_interleave(per_image)
    which_pass = torch.arange(len(images)) - firsts
    first_pass = (passes.cumsum(0) - passes)[index.targets[images]]
    stream = images[shuffled_within(first_pass + which_pass, generator)]
    sizes = passes * index.counts
    return stream, sizes.cumsum(0) - sizes
