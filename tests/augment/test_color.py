import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from longtail.augment import ColorJitter
from longtail.augment.color import blend, grey, mean_grey, shift_hue

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def pixels(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def image_of(tensor):
    return Image.fromarray(tensor.permute(1, 2, 0).numpy())


def tensor_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_grey_is_pillows():
    images = pixels(4, 3, 16, 16)
    for image, luma in zip(images, grey(images), strict=True):
        expected = torch.from_numpy(np.array(image_of(image).convert("L"))).float()
        assert (luma[0] - expected).abs().max() <= 1
        assert (luma[0] == expected).float().mean() > 0.98  # Pillow's weights are 16-bit numbers
    torch.testing.assert_close(grey(images.float() / 255), grey(images) / 255, atol=0.003, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("kind", range(3))
def test_each_change_is_pillows(kind, factor):
    images = pixels(3, 3, 16, 16)
    luma = grey(images)
    partner = [torch.zeros(1), mean_grey(luma, images.dtype), luma][kind]
    out = blend(images, partner, torch.full((3,), factor))
    for image, changed in zip(images, out, strict=True):
        expected = tensor_of(ENHANCERS[kind](image_of(image)).enhance(factor))
        assert (changed.int() - expected.int()).abs().max() <= 1
    if factor == 1:
        assert torch.equal(out, images)


@pytest.mark.parametrize("turn", [-0.4, 0.0, 0.1, 0.5])
def test_hue_turns_as_the_standard_library_does(turn):
    images = torch.cat([pixels(1, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
    images[1, :, :, ::2] = 255
    out = shift_hue(images, torch.full((2,), turn))
    for image, turned in zip(images, out, strict=True):
        for pixel, changed in zip(image.flatten(1).T.tolist(), turned.flatten(1).T.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(v / 255 for v in pixel))
            expected = [255 * v for v in colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)]
            assert changed == pytest.approx(expected, abs=0.51)
    if turn == 0:
        assert torch.equal(out, images)


@pytest.mark.parametrize("hue", [0.0, 0.2])
def test_each_image_is_changed_in_its_own_order(hue):
    """A loop over images with the same draws, one change after the other, each on whole numbers."""
    jitter = ColorJitter(0.4, 0.6, 0.8, hue)
    images = pixels(24, 3, 9, 7)
    order, factors = jitter.draws(24, seeded(2), images.device)
    out = jitter(images, seeded(2))
    for k in range(24):
        expected = images[k : k + 1]
        for kind in order[:, k].tolist():
            factor = factors[kind, k : k + 1]
            luma = grey(expected)
            if kind == 3:
                expected = shift_hue(expected, factor)
            else:
                expected = blend(expected, [torch.zeros(1), mean_grey(luma, torch.uint8), luma][kind], factor)
        assert torch.equal(out[k], expected[0])
    assert len({tuple(column) for column in order.T.tolist()}) > 4


def test_factors_cover_their_ranges():
    jitter = ColorJitter(0.4, 1.5, 0.0, 0.1)
    _, factors = jitter.draws(5000, seeded(), torch.device("cpu"))
    for row, (low, high) in zip(factors, [(0.6, 1.4), (0.0, 2.5), (1.0, 1.0), (-0.1, 0.1)], strict=True):
        assert low <= row.min() <= low + 0.01
        assert high - 0.01 <= row.max() <= high
        assert row.mean().item() == pytest.approx((low + high) / 2, abs=0.03)


def test_without_strength_nothing_changes():
    for images in (pixels(5, 3, 8, 8), pixels(5, 3, 8, 8).float() / 255):
        assert torch.equal(ColorJitter(0, 0, 0)(images, seeded()), images)


def test_floating_point_images_are_changed_alike():
    images = pixels(16, 3, 8, 8)
    out = ColorJitter()(images.float() / 255, seeded())
    assert out.dtype == torch.float32
    assert 0 <= out.min() <= out.max() <= 1
    # Three changes of whole numbers, each cut off.
    assert (255 * out - ColorJitter()(images, seeded()).float()).abs().max() < 8


def test_grey_images_have_brightness_and_contrast_only():
    images = pixels(64, 1, 6, 6)
    assert torch.equal(ColorJitter(0, 0, 0.9, 0.5)(images, seeded()), images)
    assert not torch.equal(ColorJitter(0.9, 0, 0)(images, seeded()), images)


def test_the_generator_decides_and_the_batch_stays():
    images = pixels(8, 3, 8, 8)
    before = images.clone()
    first = ColorJitter()(images, seeded(1))
    assert torch.equal(first, ColorJitter()(images, seeded(1)))
    assert not torch.equal(first, ColorJitter()(images, seeded(2)))
    assert torch.equal(images, before)
    equal = pixels(1, 3, 8, 8).expand(8, -1, -1, -1)
    assert len(torch.unique(ColorJitter()(equal, seeded()).flatten(1), dim=0)) > 4


def test_an_empty_batch_stays_empty():
    assert ColorJitter()(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), seeded()).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("options", [{"brightness": -0.1}, {"hue": 0.6}, {"contrast": float("nan")}])
def test_wrong_settings_are_refused(options):
    with pytest.raises(ValueError, match="strengths must be at least 0 and hue at most"):
        ColorJitter(**options)
