"""Remix: the label of a mix goes to the rarer class (Chou et al., ECCV workshops 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from longtail.augment.mixup import Mixup
from longtail.types import Batch, Progress


def remix_shares(lam: Tensor, counts: Tensor, mixed_counts: Tensor, kappa: float, tau: float) -> Tensor:
    """Return the share of each first label, (B,): 0 or 1 where the classes differ much in size, else ``lam``.

    0, all to the second label, where ``n_a / n_b >= kappa`` and ``lam < tau``; 1 where ``n_a / n_b <= 1 / kappa`` and
    ``1 - lam < tau``.

    Args:
        lam: Share of each first image, (B,).
        counts: Training images of its class n_a, (B,).
        mixed_counts: Training images of the class mixed in n_b, (B,).
        kappa: How many times larger a class must be.
        tau: Below which share of the image the larger class gives up its label.
    """
    counts, mixed_counts = counts.double(), mixed_counts.double()
    second = (counts >= kappa * mixed_counts) & (lam < tau)
    first = (mixed_counts >= kappa * counts) & (1 - lam < tau)
    return torch.where(first, 1.0, torch.where(second, 0.0, lam))


@dataclass(frozen=True)
class Remix:
    """Mixup whose labels are mixed by another rule: the rarer class takes the whole label where it is rare enough.

    Args:
        class_counts: Training images per class, C numbers.
        alpha: Parameter of mixup's Beta distribution; 1 in the bag-of-tricks code.
        kappa: How many times larger a class must be; 3 in the paper.
        tau: Below which share of the image the larger class gives up its label; 0.5 in the paper.

    Raises:
        ValueError: If ``kappa`` is below 1 or ``tau`` not in 0..1.

    Source: github.com/zhangyongshun/BagofTricks-LT, lib/core/combiner.py.
    """

    class_counts: Sequence[int]
    alpha: float = 1.0
    kappa: float = 3.0
    tau: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_counts", tuple(int(n) for n in self.class_counts))
        if not self.kappa >= 1:
            raise ValueError(f"Remix: kappa must be at least 1, got {self.kappa}")
        if not 0 <= self.tau <= 1:
            raise ValueError(f"Remix: tau must lie in 0..1, got {self.tau}")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the mixed batch with Remix's shares as ``lam``; the given one stays as it is.

        Args:
            batch: Images (B, C, H, W), floating point, that are not mixed yet.
            generator: Where the random draws come from; on the images' device or the CPU.

        Raises:
            ValueError: If the images are integers or mixed already.
        """
        mixed = Mixup(self.alpha)(batch, generator)
        if mixed.lam is None or mixed.mixed_targets is None:
            return mixed
        counts = _on_device(tuple(self.class_counts), batch.targets.device)
        shares = remix_shares(mixed.lam, counts[batch.targets], counts[mixed.mixed_targets], self.kappa, self.tau)
        return replace(mixed, lam=shares)

    def mix(self, batches: tuple[Batch, ...], generator: torch.Generator, progress: Progress) -> tuple[Batch, ...]:
        """Mix every stream's batch within itself; the schedule does not matter."""
        return tuple(self(batch, generator) for batch in batches)


@lru_cache(maxsize=8)
def _on_device(class_counts: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the counts as a tensor; kept, because copying them to a GPU would wait for it."""
    return torch.tensor(class_counts, device=device)
