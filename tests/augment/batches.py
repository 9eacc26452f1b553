"""What the tests of mixing share: the golden cases, a batch that can be read, a seeded generator."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from longtail.types import Batch

CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "fusion_augmentation.json").read_text())["cases"]
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(size: int = 8, height: int = 10, width: int = 10) -> Batch:
    """Image k is k everywhere, so that a pixel says where it is from."""
    images = torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1).expand(size, 3, height, width)
    images = images.contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.arange(size) + 50, torch.arange(size) + 100)
