"""Experts for groups of classes: the groups by size, the experts' own training, and their answer together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses.checks import ClassCounts, check_class_counts
from longtail.methods.supervised import SupervisedObjective
from longtail.types import Batch, Progress

FEW_CLASSES = 31
"""Up to so many classes a data set is like CIFAR-10, with more like CIFAR-100: halfway on a logarithmic scale."""


def class_groups(class_counts: tuple[int, ...], many: int = 100, few: int = 20) -> list[tuple[int, ...]]:
    """Divide the classes that have images into groups of two or more, from many to few images.

    Args:
        class_counts: Training images per class.
        many: A class of at least this many images belongs to the first group.
        few: A class of at most this many belongs to the last; ``many`` goes first where both hold.

    Returns:
        Up to three groups of class indices. A group without classes is left out; one of a single class, which has
        nothing to tell apart, joins the next smaller one, or the last the one before it.
    """
    groups: list[list[int]] = [[], [], []]
    for label, count in enumerate(class_counts):
        if count:
            groups[0 if count >= many else 2 if count <= few else 1].append(label)
    kept = [group for group in groups if group]
    while len(kept) > 1 and min(map(len, kept)) < 2:
        lone = next(k for k, group in enumerate(kept) if len(group) < 2)
        other = lone + 1 if lone + 1 < len(kept) else lone - 1
        kept[other] = sorted(kept[other] + kept[lone])
        del kept[lone]
    return [tuple(group) for group in kept]


def usual_groups(num_classes: int) -> tuple[int, int]:
    """Return how many of the largest classes are head and how many of the smallest are tail, as ResLT's authors drew.

    2 and 6 of CIFAR-10's classes and their like, 35 and 30 of CIFAR-100's: many and few at imbalance 100.
    """
    head, medium = (0.2, 0.4) if num_classes <= FEW_CLASSES else (0.35, 0.7)
    return round(head * num_classes), num_classes - round(medium * num_classes)


def nested_classes(class_counts: ClassCounts, head: int | None = None, tail: int | None = None) -> Tensor:
    """Say which classes each of three experts has: all; all but the ``head`` largest; the ``tail`` smallest.

    Args:
        class_counts: Training images per class, C whole numbers >= 0; equal counts rank in label order.
        head: Number of classes that are head; default as `usual_groups` says.
        tail: Number of classes that are tail; default likewise.

    Returns:
        Mask, (3, C), bool.

    Raises:
        UsageError: The two groups overlap or are negative.
    """
    counts = check_class_counts(class_counts)
    usual_head, usual_tail = usual_groups(len(counts))
    head, tail = usual_head if head is None else head, usual_tail if tail is None else tail
    if min(head, tail) < 0 or head + tail > len(counts):
        raise UsageError(
            f"head is {head} and tail {tail}; they must be at least 0 and together at most {len(counts)} classes",
            fix="use a smaller --head or --tail",
        )
    rank = counts.argsort(descending=True, stable=True).argsort()
    return torch.stack([rank >= 0, rank >= head, rank >= len(counts) - tail])


class NestedObjective(nn.Module):
    """A loss of experts or branches for nested classes, on the first stream, mixed targets included.

    Args:
        criterion: Called with (logits (E, B, C), targets (B,), classes (E, C), sample weights (B,) or None).
        classes: The classes that each expert has, (E, C), bool.
    """

    classes: Tensor

    def __init__(self, criterion: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor], classes: Tensor) -> None:
        super().__init__()
        self.criterion = criterion
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        return self.loss(network(batches[0].images), batches[0])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of a batch's logits (E, B, C)."""
        targets, shares = batch.labels()
        stacked = logits if shares is None else torch.cat([logits, logits], 1)
        return self.criterion(stacked, targets, self.classes, shares)

    def extra_repr(self) -> str:
        """Say how many classes each has."""
        return f"classes={self.classes.sum(1).tolist()}"


def membership(groups: list[tuple[int, ...]], num_classes: int) -> Tensor:
    """Say which classes each group has: (E, C), bool."""
    mask = torch.zeros(len(groups), num_classes, dtype=torch.bool)
    for row, group in zip(mask, groups, strict=True):
        row[list(group)] = True
    return mask


class GroupExperts(nn.Module):
    """The sum of the experts' cross-entropies, each over the classes of its group, on a stream of its own.

    Args:
        objective: The loss of one expert's logits.
        groups: Which classes each expert has, (E, C), bool.
    """

    groups: Tensor

    def __init__(self, objective: SupervisedObjective, groups: Tensor) -> None:
        super().__init__()
        self.objective = objective
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of a batch for each expert; ``progress`` is not used."""
        logits: Tensor = network(torch.stack([batch.images for batch in batches]))
        own = logits.masked_fill(~self.groups.unsqueeze(1), -torch.inf)
        losses = [self.objective.loss(each, batch) for each, batch in zip(own, batches, strict=True)]
        return torch.stack(losses).sum()


class GroupAnswers(nn.Module):
    """The answer of experts, each on its own classes; a single network's logits stay as they are.

    Args:
        groups: Which classes each expert has, (E, C), bool.
    """

    def __init__(self, groups: Tensor) -> None:
        super().__init__()
        self.owner = tuple(groups.int().argmax(0).tolist())

    def forward(self, logits: Tensor) -> Tensor:
        """Map expert logits (E, B, C), or logits (B, C), to logits (B, C)."""
        if logits.ndim == 2:
            return logits
        return logits[list(self.owner), :, range(len(self.owner))].T.contiguous()
