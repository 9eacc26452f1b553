"""MBJ: memory-based jitter, for classification (Liu, Li and Sun, AAAI 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import cross_entropy_loss
from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.methods.deferred import split
from longtail.methods.feature_queue import FeatureQueue
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.training.world import gather_over_processes
from longtail.types import Batch, Progress

CARD = Card(
    title="Memory-based jitter",
    paper="Liu, Li and Sun, AAAI 2022",
    arxiv="2008.09809",
    idea="A memory keeps features that the changing network gave images in the last epochs, above all those of rare "
    "classes. The classifier learns from batch and memory, and so sees rare images in many versions.",
    use="Almost free, as +drw and +drs, with which it shares the switch. Its settings were not published in full.",
)


LARGEST = 16_384
"""Features in the memory by default, at most; the classifier sees all of them in each step."""


class MemoryBasedJitter(nn.Module):
    """The loss of the batch, and that of the classifier on a memory of features in which classes are even.

    A feature of class y enters the memory with probability (n_min / n_y)^power, so that at power 1 each class has as
    many in it. No gradient goes from the memory to the features.

    Args:
        objective: The loss of the batch.
        class_counts: Training images per class, n.
        memory: Features in the memory.
        power: See above.

    Source: abstract and notes on the paper; there is no code. docs/methods/mbj.md says what was settled here.
    """

    takes_mixed = False
    chances: Tensor

    def __init__(
        self, objective: SupervisedObjective, class_counts: Sequence[int], *, memory: int, power: float = 1.0
    ) -> None:
        super().__init__()
        self.objective = objective
        self.size = memory
        self.memory: FeatureQueue | None = None
        smallest = min(n for n in class_counts if n)
        chances = [(smallest / max(n, smallest)) ** power for n in class_counts]
        self.register_buffer("chances", torch.tensor(chances), persistent=False)

    def prepare(self, before: Network, network: Network) -> None:
        """Make the empty memory, as wide as the network's features."""
        self.memory = FeatureQueue(self.size, network.num_features)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch and the memory; ``progress`` is not used."""
        assert self.memory is not None
        batch = batches[0]
        features: Tensor = network.features(batch.images)  # type: ignore[operator]
        classify: nn.Module = network.head  # type: ignore[assignment]
        loss = self.objective.loss(classify(features), batch) + self.remembered(classify)
        chosen = torch.rand_like(self.chances[batch.targets]) < self.chances[batch.targets]
        targets = batch.targets.masked_fill(~chosen, -1)
        self.memory.push(gather_over_processes(features.detach()), gather_over_processes(targets))
        return loss

    def remembered(self, classify: nn.Module) -> Tensor:
        """Return the mean cross-entropy of the memory's features; 0 while it is empty."""
        assert self.memory is not None
        # Copies, since the memory changes before the backward pass.
        features, targets = self.memory.features.clone(), self.memory.targets.clone()
        losses = cross_entropy_loss(classify(features), targets.clamp(min=0))
        filled = (targets >= 0).to(losses.dtype)
        return (losses * filled).sum() / filled.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """Say how large the memory is."""
        return f"memory={self.size}, chances={self.chances.min():.3g} to 1"


def memory_size(class_counts: Sequence[int], power: float) -> int:
    """Return how many features enter the memory in eight epochs on average, at most 16,384."""
    present = [n for n in class_counts if n]
    entering: float = sum(n * (min(present) / n) ** power for n in present)
    return min(round(8 * entering), LARGEST)


def mbj(context: Context, *, memory: int | None = None, power: float = 1.0, start: float = 0.8) -> Recipe:
    """Cross-entropy; from 80 % of the epochs on plus that of the classifier on a memory of features.

    See `MemoryBasedJitter`.

    Args:
        context: Class counts and budget.
        memory: Features in the memory; None: those of eight epochs, see `memory_size`.
        power: A feature of class y enters with probability (n_min / n_y)^power.
        start: Share of the epochs before the switch.

    Raises:
        UsageError: A number is out of range, or there are too few epochs for a switch.
    """
    if not ((memory is None or memory >= 1) and 0 <= power < math.inf):
        raise UsageError(f"mbj: memory is {memory} and power {power}; they must be at least 1, and finite and >= 0")
    memory = memory_size(context.class_counts, power) if memory is None else memory
    recipe = ce(context)
    early, late = split(recipe.stages[0], start)
    assert isinstance(late.objective, SupervisedObjective)
    objective = MemoryBasedJitter(late.objective, context.class_counts, memory=memory, power=power)
    return recipe.with_stages(early, replace(late, objective=objective))
