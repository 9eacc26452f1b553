"""Training images that do not fit on the device stay in host memory; on a CPU nothing is copied."""

from __future__ import annotations

import pytest
import torch

from longtail.augment import Compose, Normalize, RandomFlip
from longtail.training.inference import network_logits
from longtail.training.loader import StageLoader, placed
from longtail.training.recipe import Stage
from longtail.training.runtime import Runtime
from longtail.training.world import World

CPU = torch.device("cpu")


def test_on_a_cpu_nothing_is_copied():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    assert placed(images, CPU).data_ptr() == images.data_ptr()


def test_large_images_pass_in_small_batches():
    sizes = []

    class Spy(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            return images.mean((2, 3))

    for side, most in ((8, 512), (224, 83)):
        images = torch.zeros(600 if side == 8 else 100, 3, side, side, dtype=torch.uint8)
        plain = Compose((Normalize((0.5,) * 3, (0.5,) * 3),))
        logits = network_logits(Spy(), images, plain, Runtime())
        assert logits.shape == (len(images), 3)
        assert max(sizes) == most
        sizes.clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_from_host_memory_are_those_from_the_device(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    cuda = torch.device("cuda")
    targets = (torch.arange(40) % 4).to(cuda)
    augment = Compose((RandomFlip(), Normalize((0.5,) * 3, (0.5,) * 3)))
    stage = Stage("x", None, 1, augment, 8, views=(Compose((Normalize((0.5,) * 3, (0.5,) * 3),)),))
    assert placed(images, cuda).is_cuda
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.nbytes - 2, 0))
    kept = placed(images, cuda)
    assert not kept.is_cuda
    loaders = [
        StageLoader(where, targets, stage, number=0, num_classes=4, seed=0, world=World())
        for where in (images.to(cuda), kept)
    ]
    for step in range(5):
        found = [loader.batches(loader.plan(0), 0, step)[0] for loader in loaders]
        for ours, theirs in zip(*found, strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.targets, theirs.targets)
            assert torch.equal(ours.indices, theirs.indices)
