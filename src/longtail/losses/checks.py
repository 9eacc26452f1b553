"""Checks of what a loss is given. They read shapes and dtypes of batches, never values, so nothing waits for a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ClassCounts = Sequence[int] | NDArray[np.integer] | Tensor
"""Training images per class, as a sequence, array or tensor of C integers."""

ClassWeights = Sequence[float] | NDArray[np.floating] | Tensor
"""One weight per class, as a sequence, array or tensor of C numbers."""


def _tensor(values: ClassCounts | ClassWeights) -> Tensor:
    """Return a detached copy of the values as a tensor (PyTorch warns where it shares a read-only array)."""
    if isinstance(values, Tensor):
        return values.detach().clone()
    return torch.from_numpy(np.array(values))


def check_class_counts(class_counts: ClassCounts) -> Tensor:
    """Return class counts as an int64 tensor on the CPU, (C,).

    Args:
        class_counts: Training images per class; 0 is allowed, but not for every class.

    Raises:
        ValueError: If they are not one-dimensional, not whole numbers, negative, or all zero.
    """
    counts = _tensor(class_counts).cpu()
    if counts.ndim != 1 or len(counts) == 0:
        raise ValueError(f"class_counts must be one number per class, got shape {tuple(counts.shape)}")
    if counts.dtype == torch.bool or counts.is_complex():
        raise ValueError(f"class_counts must be whole numbers, got dtype {counts.dtype}")
    wrong = ~torch.isfinite(counts) | (counts != counts.round()) | (counts < 0)
    if wrong.any():
        where = int(wrong.nonzero()[0])
        raise ValueError(f"class_counts must be whole numbers >= 0, got {counts[where].item()} for class {where}")
    if not counts.any():
        raise ValueError(f"class_counts must have a class with images, got {len(counts)} zeros")
    return counts.to(torch.int64)


def check_class_weights(class_weights: ClassWeights, num_classes: int) -> Tensor:
    """Return class weights as a float64 tensor, (C,), on the device where they are.

    Raises:
        ValueError: If they are not C finite numbers >= 0.
    """
    weights = _tensor(class_weights)
    # Double only on the host: some devices have no float64.
    weights = weights.to(torch.float32 if weights.device.type == "mps" else torch.float64)
    if weights.shape != (num_classes,):
        raise ValueError(f"class_weights must have shape ({num_classes},), got {tuple(weights.shape)}")
    wrong = ~torch.isfinite(weights) | (weights < 0)
    if wrong.any():
        where = int(wrong.nonzero()[0])
        raise ValueError(f"class_weights must be finite and >= 0, got {weights[where].item()} for class {where}")
    return weights


def check_number(name: str, value: float, low: float, high: float = math.inf) -> float:
    """Return a hyper-parameter as a float.

    Args:
        name: Its name, for the message.
        value: Its value.
        low: Smallest allowed value.
        high: Largest allowed value.

    Raises:
        ValueError: If it is not a finite number in [low, high].
    """
    if not math.isfinite(value) or not low <= value <= high:
        rule = f">= {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a finite number {rule}, got {value!r}")
    return float(value)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check a hyper-parameter that is one of a few words.

    Raises:
        ValueError: If it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_batch(logits: Tensor, targets: Tensor, sample_weights: Tensor | None, num_classes: int) -> None:
    """Check the shapes and dtypes of a batch; the values are left alone.

    Raises:
        ValueError: If logits are not floating (B, C), targets not int64 (B,), or sample weights not (B,).
    """
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(f"logits must have shape (batch, {num_classes}), got {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise ValueError(f"logits must be floating point, got {logits.dtype}")
    if targets.shape != logits.shape[:1]:
        raise ValueError(
            f"targets must be class indices of shape ({logits.shape[0]},), got {tuple(targets.shape)}; "
            "for mixed labels weight the loss of each label with sample_weights"
        )
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64, got {targets.dtype}; use targets.long()")
    if sample_weights is not None and sample_weights.shape != targets.shape:
        raise ValueError(f"sample_weights must have shape {tuple(targets.shape)}, got {tuple(sample_weights.shape)}")
