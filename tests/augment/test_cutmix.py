from __future__ import annotations

import pytest
import torch
from batches import CASES, make_batch, seeded

from longtail.augment import CutMix
from longtail.augment.cutmix import cut_boxes, draw_masks
from longtail.types import Batch, Progress


def test_boxes_are_those_of_the_official_code():
    case = CASES["cutmix_cmo_seeded"]
    _, lam, x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*case["inputs"]["rows"], strict=True))
    top, left, bottom, right = cut_boxes(lam, y.long(), x.long(), 32, 32)
    assert torch.stack([left, top, right, bottom], dim=1).tolist() == case["output"]["rows"]


@pytest.mark.parametrize(
    ("lam", "row", "column", "box"),
    [
        (1.0, 5, 5, (5, 5, 5, 5)),
        (1 - 0.1**2 * 1.001, 5, 5, (5, 5, 5, 5)),  # a side of one pixel is empty
        (1 - 0.3**2 * 1.001, 5, 5, (4, 4, 6, 6)),  # a side of three pixels is two
        (0.0, 5, 5, (0, 0, 10, 10)),
        (0.0, 0, 9, (0, 4, 5, 10)),
    ],
)
def test_boxes_at_the_edges(lam, row, column, box):
    edges = cut_boxes(torch.tensor([lam], dtype=torch.float64), torch.tensor([row]), torch.tensor([column]), 10, 10)
    assert tuple(int(edge) for edge in edges) == box


@pytest.mark.parametrize("per_image", [False, True])
def test_lam_is_the_share_of_pixels_that_stay_and_targets_are_the_partners(per_image):
    batch = make_batch(height=10, width=6)
    seen = []
    for seed in range(30):
        mixed = CutMix(prob=1.0, per_image=per_image)(batch, seeded(seed))
        for k in range(len(batch)):
            own = (mixed.images[k] == k).float().mean()
            if mixed.mixed_targets[k] != batch.targets[k]:
                assert mixed.lam[k].item() == pytest.approx(own.item(), abs=1e-6)
                others = mixed.images[k][mixed.images[k] != k]
                assert (others == mixed.mixed_targets[k] - 50).all()
        seen.append(len(mixed.lam.unique()))
        assert mixed.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(mixed.indices, batch.indices)
    assert (max(seen) > 1) == per_image
    assert torch.equal(batch.images, make_batch(height=10, width=6).images)


def test_the_area_is_that_of_the_beta_distribution_up_to_clipping():
    masks = draw_masks(20_000, 1.0, 32, 32, seeded())
    # E[1 - lam] is 1/2 and the edges cut some off: 0.2995 over 200,000 boxes of the official arithmetic in numpy.
    assert masks.float().mean().item() == pytest.approx(0.2995, abs=0.008)


@pytest.mark.parametrize(("prob", "low", "high"), [(0.0, 0, 0), (0.5, 120, 180), (1.0, 280, 300)])
def test_batches_are_mixed_with_the_given_probability(prob, low, high):
    batch = make_batch()
    mixed = sum(bool((CutMix(prob=prob)(batch, seeded(seed)).lam < 1).any()) for seed in range(300))
    # With a box smaller than two pixels nothing is pasted: about 4 % of the draws of a 10 x 10 image.
    assert low <= mixed <= high


def test_a_batch_that_is_left_alone_has_lam_one():
    batch = make_batch()
    mixed = CutMix(prob=0.0)(batch, seeded())
    assert torch.equal(mixed.images, batch.images)
    assert mixed.lam.tolist() == [1.0] * 8


def test_every_stream_is_mixed_within_itself():
    batch = make_batch()
    first, second = CutMix(prob=1.0).mix((batch, batch), seeded(), Progress(0, 1))
    assert not torch.equal(first.images, second.images)


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_batches(size):
    batch = make_batch(size)
    mixed = CutMix(prob=1.0)(batch, seeded())
    assert torch.equal(mixed.images, batch.images)
    assert mixed.lam.shape == (size,)


def test_wrong_use_is_refused():
    batch = make_batch()
    with pytest.raises(ValueError, match="CutMix: the batch is mixed already"):
        CutMix()(CutMix()(batch, seeded()), seeded())
    with pytest.raises(ValueError, match="floating-point"):
        CutMix()(Batch(batch.images.to(torch.uint8), batch.targets, batch.indices), seeded())
    with pytest.raises(ValueError, match="alpha must be a finite number above 0, got 0"):
        CutMix(alpha=0)
    with pytest.raises(ValueError, match=r"prob must lie in 0..1, got 2"):
        CutMix(prob=2)
