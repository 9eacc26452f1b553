"""What the losses share: class counts, class weights, reduction, and the arithmetic type."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from longtail.losses.checks import (
    ClassCounts,
    ClassWeights,
    check_batch,
    check_choice,
    check_class_counts,
    check_class_weights,
)
from longtail.losses.reduction import REDUCTIONS, Reduction, reduce_losses


def upcast(logits: Tensor) -> Tensor:
    """Return logits in float32 where they are half or bfloat16; float32 and float64 stay as they are."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def target_mask(logits: Tensor, targets: Tensor) -> Tensor:
    """Return a boolean mask of logits' shape, (B, C), that is true at each sample's own class."""
    return targets.unsqueeze(1) == torch.arange(logits.shape[1], device=targets.device)


class ClassCountLoss(nn.Module, ABC):
    """Base of the losses: built from class counts alone, weighted by class and by sample.

    A subclass writes `sample_losses`. What it derives from the class counts is float64 in non-persistent buffers (see
    `register_per_class`): it moves with the module, it is exact for float64 logits, and a checkpoint need not hold it.

    Args:
        class_counts: Training images per class, C whole numbers >= 0, at least two classes.
        class_weights: Weight of each class, C numbers >= 0; None for no weights.
        reduction: How sample losses become one number: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``
            (`longtail.losses.reduce_losses` says what each divides by).

    Attributes:
        class_counts: The counts, int64, (C,).
        class_weights: The weights, float64, (C,), or None.
        reduction: The reduction's name.
        balances: Whether logits that it trained answer a test with equal classes by themselves, so that neither the
            samples nor the answer should be balanced too.

    Raises:
        ValueError: If an argument breaks these rules.
    """

    balances: ClassVar[bool] = False
    class_counts: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__()
        counts = check_class_counts(class_counts)
        if len(counts) < 2:
            raise ValueError(f"class_counts must have at least 2 classes, got {counts.tolist()}")
        check_choice("reduction", reduction, REDUCTIONS)
        self.reduction: Reduction = reduction
        self.register_per_class("class_counts", counts)
        self._count_range = f"{int(counts.min())}..{int(counts.max())}"
        weights = None if class_weights is None else check_class_weights(class_weights, len(counts)).cpu()
        self.register_per_class("class_weights", weights)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_counts)

    def register_per_class(self, name: str, values: Tensor | None) -> None:
        """Keep a per-class tensor that follows from the arguments: it moves with the module and is not saved."""
        self.register_buffer(name, values, persistent=False)

    @abstractmethod
    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the unweighted loss of each sample, (B,), from logits (B, C) and targets (B,)."""

    def forward(self, logits: Tensor, targets: Tensor, sample_weights: Tensor | None = None) -> Tensor:
        """Compute the loss in float32, or in float64 for float64 logits.

        Args:
            logits: What the network emits, (B, C).
            targets: Class indices in [0, C), (B,), int64.
            sample_weights: Weight of each sample, (B,), or None. Mixed labels are two such calls, or one call on the
                batch repeated, weighted ``lam`` and ``1 - lam``.

        Returns:
            A scalar, or (B,) for ``reduction="none"``.

        Raises:
            ValueError: If a shape or dtype is wrong.
        """
        check_batch(logits, targets, sample_weights, self.num_classes)
        losses = self.sample_losses(upcast(logits), targets)
        return reduce_losses(losses, targets, self.class_weights, sample_weights, self.reduction)

    def with_class_weights(self, class_weights: ClassWeights | None, reduction: Reduction = "weight_sum") -> Self:
        """Return a copy of this loss with other class weights, as deferred re-weighting switches to.

        Args:
            class_weights: The new weights, C numbers >= 0; they replace the old ones. None removes them.
            reduction: The copy's reduction; the default is what PyTorch codes of deferred re-weighting do.

        Raises:
            ValueError: If the weights or the reduction are not valid.
        """
        check_choice("reduction", reduction, REDUCTIONS)
        weights = None if class_weights is None else check_class_weights(class_weights, self.num_classes)
        other = copy.deepcopy(self)
        other.reduction = reduction
        other.class_weights = None if weights is None else weights.to(self.class_counts.device)
        return other

    def extra_repr(self) -> str:
        """Describe the class counts, weights and reduction; subclasses put their hyper-parameters in front."""
        weighted = "None" if self.class_weights is None else f"({self.num_classes},)"
        return (
            f"num_classes={self.num_classes}, class_counts={self._count_range}, class_weights={weighted}, "
            f"reduction={self.reduction!r}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the per-class buffers but keep their dtype: log-priors rounded to half would be wrong.

        Only on a device without float64 they become float32.
        """
        exact = {name: b for name, b in self.named_buffers(recurse=False) if b.dtype == torch.float64}
        for name, buffer in exact.items():
            setattr(self, name, buffer.float())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            moved = getattr(self, name)
            setattr(self, name, moved.float() if moved.device.type == "mps" else buffer.to(moved.device))
        return self
