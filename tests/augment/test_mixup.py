import json
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail.augment import Mixup
from longtail.augment.mixup import beta
from longtail.types import Batch

CASES = [
    case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "fusion_augmentation.json").read_text())["cases"]
    if case["id"].startswith("mixup_alpha")
]


def make_batch(size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 4, 4, generator=generator).contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.arange(size) % 5, torch.arange(size) + 100)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("per_batch", [False, True])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_images_and_targets_are_mixed_with_the_same_partner_and_share(alpha, per_batch):
    batch = make_batch()
    mixed = Mixup(alpha, per_batch)(batch, seeded(4))
    generator = seeded(4)
    lam = beta(alpha, 1 if per_batch else 8, generator).expand(8)
    partners = torch.randperm(8, generator=generator).tolist()
    for i, j in enumerate(partners):
        expected = lam[i] * batch.images[i] + (1 - lam[i]) * batch.images[j]
        torch.testing.assert_close(mixed.images[i], expected)
        assert mixed.mixed_targets[i] == batch.targets[j]
    assert torch.equal(mixed.lam, lam)
    assert mixed.lam.dtype == torch.float32
    assert torch.equal(mixed.targets, batch.targets)
    assert torch.equal(mixed.indices, batch.indices)
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_mix_equals_the_official_code(case, monkeypatch):
    """With MiSLAS's draws in place of ours, the mixed images and both targets are MiSLAS's."""
    inputs, output = case["inputs"], case["output"]
    monkeypatch.setattr("longtail.augment.mixup.beta", lambda *_: torch.tensor([inputs["lambda"]]))
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: torch.tensor(inputs["permutation"]))
    images = torch.tensor(inputs["x"], dtype=torch.float64)[:, :, None, None]
    targets = torch.tensor(inputs["y"])
    mixed = Mixup(per_batch=True)(Batch(images, targets, targets), seeded())
    expected = torch.tensor(output["mixed_x"], dtype=torch.float64)
    torch.testing.assert_close(mixed.images[:, :, 0, 0], expected, rtol=0, atol=1e-6)  # the share is float32
    assert mixed.targets.tolist() == output["y_a"]
    assert mixed.mixed_targets.tolist() == output["y_b"]


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_without_alpha_nothing_is_mixed(alpha):
    batch = make_batch()
    assert Mixup(alpha)(batch, seeded()) is batch


def test_the_generator_decides_and_the_given_batch_stays():
    batch = make_batch()
    before = batch.images.clone()
    first, again, other = (Mixup()(batch, seeded(s)).images for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(batch.images, before)


def test_each_image_has_its_own_share_unless_per_batch():
    batch = make_batch(64)
    assert len(Mixup()(batch, seeded()).lam.unique()) == 64
    assert len(Mixup(per_batch=True)(batch, seeded()).lam.unique()) == 1


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha):
    draws = np.sort(beta(alpha, 20_000, seeded()).double().numpy())
    reference = np.sort(np.random.default_rng(0).beta(alpha, alpha, 20_000).astype(np.float32))
    assert np.isfinite(draws).all()
    assert draws.min() >= 0
    assert draws.max() <= 1
    # Two-sample Kolmogorov-Smirnov distance; 0.0195 is its 0.1 % point for 20,000 draws each.
    grid = np.concatenate([draws, reference])
    distance = np.abs(np.searchsorted(draws, grid, "right") - np.searchsorted(reference, grid, "right")).max() / 20_000
    assert distance < 0.0195


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_batches(size):
    batch = make_batch(size)
    mixed = Mixup()(batch, seeded())
    torch.testing.assert_close(mixed.images, batch.images)
    assert mixed.lam.shape == (size,)


def test_wrong_use_is_refused():
    batch = make_batch()
    with pytest.raises(ValueError, match="mixed already"):
        Mixup()(Mixup()(batch, seeded()), seeded())
    with pytest.raises(ValueError, match=r"floating-point images .* got torch.uint8"):
        Mixup()(Batch(batch.images.to(torch.uint8), batch.targets, batch.indices), seeded())
    with pytest.raises(ValueError, match="alpha must be finite, got nan"):
        Mixup(float("nan"))
