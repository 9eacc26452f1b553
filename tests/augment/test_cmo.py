from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import CASES, make_batch, seeded

from longtail.augment import CMO
from longtail.sampling import ClassIndex, PowerSampling, class_probabilities
from longtail.types import Progress


def two_streams():
    background = make_batch()
    foreground = make_batch()
    return background, replace(foreground, images=foreground.images + 1000, targets=foreground.targets + 1000)


def test_the_patch_comes_from_the_second_stream_and_the_canvas_from_the_first():
    background, foreground = two_streams()
    pasted = 0
    for seed in range(20):
        (mixed,) = CMO(prob=1.0).mix((background, foreground), seeded(seed), Progress(100, 200))
        assert torch.equal(mixed.targets, background.targets)
        assert torch.equal(mixed.indices, background.indices)
        assert torch.equal(mixed.mixed_targets, foreground.targets)
        patch = mixed.images >= 1000
        assert torch.equal(mixed.images, torch.where(patch, foreground.images, background.images))
        assert (patch == patch[:1]).all()  # one box for the batch
        torch.testing.assert_close(mixed.lam, 1 - patch.float().mean((1, 2, 3)))
        pasted += int(patch.any())
    assert pasted > 10
    assert torch.equal(background.images, make_batch().images)


def on(epochs: int) -> list[int]:
    return [epoch for epoch in range(epochs) if CMO().is_on(Progress(epoch, epochs))]


def test_the_window_is_the_official_one_at_200_epochs_and_scales():
    assert on(200) == [epoch for epoch in range(200) if 3 < epoch < 200 - 3]
    assert on(400) == list(range(8, 394))
    assert on(150) == list(range(3, 147))
    assert on(24) == list(range(1, 23))
    assert on(3) == [1]
    assert on(1) == []


def test_outside_the_window_the_first_stream_is_left_alone():
    background, foreground = two_streams()
    assert CMO(prob=1.0).mix((background, foreground), seeded(), Progress(0, 200)) == (background,)


@pytest.mark.parametrize("name", ["cmo_sampler_c100_r1", "cmo_sampler_c100_r0.5"])
def test_foreground_classes_are_drawn_as_in_the_official_code(name):
    case = CASES[name]
    r, counts = case["hyper"]["weighted_alpha"], case["inputs"]["class_counts"]
    expected = torch.tensor(case["output"]["class_probability"], dtype=torch.float64)
    torch.testing.assert_close(class_probabilities(counts, 1 - r), expected, rtol=0, atol=1e-10)
    paper = class_probabilities(counts, -r)
    assert (paper - expected).abs().max().item() == pytest.approx(
        case["check"]["paper_formula_p_k~n_k^-r_max_abs_diff"], rel=1e-9
    )


def test_a_class_with_one_image_is_a_foreground_as_often_as_any_other():
    index = ClassIndex(torch.tensor([0] * 99 + [1]), 2)
    drawn = torch.cat([PowerSampling(0.0).epoch(index, e, 50, seeded(e)) for e in range(50)])
    assert (index.targets[drawn] == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_wrong_use_is_refused():
    background, foreground = two_streams()
    with pytest.raises(ValueError, match="needs two streams, backgrounds and foregrounds, got 1"):
        CMO().mix((background,), seeded(), Progress(5, 10))
    with pytest.raises(ValueError, match="must have one shape"):
        CMO()(background, make_batch(4), seeded())
    mixed = CMO(prob=1.0)(background, foreground, seeded())
    with pytest.raises(ValueError, match="CMO: the batch is mixed already"):
        CMO()(mixed, foreground, seeded())
    with pytest.raises(ValueError, match=r"must lie in 0..1, got -1 and 0.015"):
        CMO(plain_start=-1)
