"""The training set as samplers see it: which images each class has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, init=False, repr=False)
class ClassIndex:
    """The images of each class, ready for vectorised draws.

    Args:
        targets: Class of each training image, (N,), int64; kept.
        num_classes: Number of classes C; classes without an image are allowed and never drawn.

    Attributes:
        counts: Images per class, (C,), int64.
        offsets: Where each class starts in ``order``, (C,), int64.
        order: Images sorted by class, (N,), int64.

    Raises:
        ValueError: There is no image, the targets are not one-dimensional whole numbers, or one is not in 0..C-1.
    """

    targets: Tensor
    num_classes: int
    counts: Tensor
    offsets: Tensor
    order: Tensor

    def __init__(self, targets: Tensor | Sequence[int], num_classes: int) -> None:
        classes = torch.as_tensor(targets).cpu()
        if classes.ndim != 1 or not len(classes) or classes.is_floating_point():
            raise ValueError(f"ClassIndex: targets must be (N,) whole numbers, N >= 1; got {_describe(classes)}")
        classes = classes.long()
        low, high = int(classes.min()), int(classes.max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"ClassIndex: targets must lie in 0..{num_classes - 1}, got {low if low < 0 else high}")
        counts = torch.bincount(classes, minlength=num_classes)
        for name, value in (
            ("targets", classes),
            ("num_classes", num_classes),
            ("counts", counts),
            ("offsets", counts.cumsum(0) - counts),
            ("order", classes.argsort(stable=True)),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.targets)


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
