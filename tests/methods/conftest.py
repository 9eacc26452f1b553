"""A task that has the published protocol of CIFAR without its images."""

from __future__ import annotations

import pytest
import torch

from longtail import data


@pytest.fixture(scope="session")
def cifar_like() -> data.LongTailData:
    """CIFAR-100-LT at imbalance 100, black pictures."""
    counts = data.long_tail_counts(500, 100, 100, "exp")
    targets = torch.arange(100).repeat_interleave(torch.tensor(counts))
    train = data.ImageSet(torch.zeros(len(targets), 3, 2, 2, dtype=torch.uint8), targets)
    test = data.ImageSet(torch.zeros(100, 3, 2, 2, dtype=torch.uint8), torch.arange(100))
    return data.LongTailData(
        name="cifar100",
        train=train,
        test=test,
        class_names=tuple(map(str, range(100))),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        dev=None,
        train_indices=torch.arange(len(targets)),
        imbalance=100.0,
        profile="exp",
    )
