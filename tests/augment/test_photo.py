import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from longtail.augment import CentreCrop, RandomResizedCrop
from longtail.augment.photo import resized_crop


def pixels(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def smooth(batch, height, width):
    """Images whose neighbours are alike, as in photographs."""
    low = torch.rand(batch, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 255
    return torch.nn.functional.interpolate(low, (height, width), mode="bilinear").to(torch.uint8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pillow(image, box, size):
    """Crop and resize one image with Pillow; ``box`` is top, left, height and width."""
    top, left, height, width = (int(v) for v in box)
    cut = image[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    resized = Image.fromarray(cut).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


@settings(max_examples=30)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(3, 24), st.integers(0, 10_000))
def test_every_window_is_pillows(height, width, size, seed):
    images = pixels(5, 3, height, width, seed=seed)
    crop = RandomResizedCrop(size)
    windows = crop.windows(images, seeded(seed))
    out = crop(images, seeded(seed))
    for k, box in enumerate(zip(*windows, strict=True)):
        # Pillow rounds between rows and columns as well.
        assert (out[k].int() - pillow(images[k], box, size).int()).abs().max() <= 1


def test_a_window_of_the_result_s_size_is_copied():
    images = pixels(3, 3, 20, 24)
    corner = (torch.tensor([0.0, 4, 8]), torch.tensor([12.0, 5, 0]), torch.full((3,), 12.0), torch.full((3,), 12.0))
    out = resized_crop(images, *corner, 12)
    for k, (top, left) in enumerate([(0, 12), (4, 5), (8, 0)]):
        assert torch.equal(out[k], images[k, :, top : top + 12, left : left + 12])


def test_windows_are_drawn_one_by_one_as_the_recipe_says():
    """A loop over images with the same draws: ten attempts, area and log-uniform shape, whole pixels, any place."""
    height, width, scale, ratio = 40, 30, (0.5, 1.0), (0.5, 2.0)
    crop = RandomResizedCrop(8, scale, ratio)
    images = pixels(200, 3, height, width)
    generator = seeded(3)
    draws = torch.rand(2, 10, 200, generator=generator)
    place = torch.rand(2, 200, generator=generator)
    for k, window in enumerate(zip(*crop.windows(images, seeded(3)), strict=True)):
        expected = None
        for attempt in range(10):
            area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0, attempt, k].item())
            log = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * draws[1, attempt, k].item()
            w, h = round(math.sqrt(area * math.exp(log))), round(math.sqrt(area / math.exp(log)))
            if w <= width and h <= height:
                top, left = int(place[0, k].item() * (height - h + 1)), int(place[1, k].item() * (width - w + 1))
                expected = (top, left, h, w)
                break
        if expected is None:
            expected = (0, 0, height, width)  # its shape, 0.75, is allowed
        assert tuple(map(int, window)) == expected


@pytest.mark.parametrize(("side", "expected"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))])
def test_where_nothing_fits_the_largest_centred_window_is_taken(side, expected):
    crop = RandomResizedCrop(4, scale=(1.0, 1.0))
    windows = crop.windows(pixels(3, 3, *side), seeded())
    for window in zip(*windows, strict=True):
        assert tuple(map(int, window)) == expected


def test_windows_cover_the_range_of_areas_and_stay_inside():
    images = torch.zeros(4000, 1, 64, 64, dtype=torch.uint8)
    top, left, height, width = RandomResizedCrop(8).windows(images, seeded())
    area = height * width / 64**2
    assert area.min() < 0.12
    assert area.max() > 0.95
    # U[0.08, 1], but large windows are refused more often when they are not square
    assert 0.40 < area.mean() < 0.54
    assert ((top >= 0) & (left >= 0) & (top + height <= 64) & (left + width <= 64)).all()
    assert (top == 0).any()
    assert (top + height == 64).any()
    assert len({*zip(top.tolist(), left.tolist(), height.tolist(), strict=True)}) > 2000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_other_types_keep_theirs(dtype):
    images = smooth(4, 32, 32)
    out = RandomResizedCrop(16)(images.to(dtype) / 255, seeded())
    assert out.dtype == dtype
    expected = RandomResizedCrop(16)(images, seeded()).float() / 255
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.01)


def test_a_float64_filter_agrees():
    """The average of the window's pixels under a triangle around each new pixel's centre, term by term."""
    row = torch.arange(7, dtype=torch.float32).square().view(1, 1, 1, 7)
    image = row.expand(1, 1, 7, 7)
    one = torch.tensor([1.0])
    out = resized_crop(image, 0 * one, 1 * one, 7 * one, 6 * one, 4)[0, 0, 2]
    for i in range(4):
        centre, reach = 1 + (i + 0.5) * 1.5, 1.5
        weights = [max(0.0, 1 - abs(j + 0.5 - centre) / reach) for j in range(1, 7)]
        expected = sum(w * j**2 for w, j in zip(weights, range(1, 7), strict=True)) / sum(weights)
        assert out[i].item() == pytest.approx(expected, rel=1e-5)


def test_an_empty_batch_stays_empty():
    assert RandomResizedCrop(5)(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), seeded()).shape == (0, 3, 5, 5)


def test_the_centre_is_torchvisions():
    images = pixels(2, 3, 9, 12)
    assert torch.equal(CentreCrop(4)(images), images[:, :, 2:6, 4:8])
    assert torch.equal(CentreCrop(9)(images), images[:, :, :, 2:11])  # 1.5 rounds to 2, as there


def test_a_centre_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"crop of 10 pixels needs images as large, got 9x12"):
        CentreCrop(10)(pixels(2, 3, 9, 12))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomResizedCrop(0), "size must be at least 1, got 0"),
        (lambda: RandomResizedCrop(8, scale=(0.0, 1.0)), "scale must be a range above 0"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), "ratio must be a range above 0"),
        (lambda: RandomResizedCrop(8, ratio=(math.nan, 1.0)), "ratio must be a range above 0"),
        (lambda: CentreCrop(0), "size must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
