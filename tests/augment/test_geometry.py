import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from longtail.augment import Cutout, RandomCrop, RandomFlip, RandomRotation
from longtail.augment.geometry import rotate

TRANSFORMS = [RandomCrop(2), RandomCrop(2, "reflect"), RandomFlip(), RandomRotation(40), Cutout(4)]
IDENTITIES = [RandomCrop(0), RandomCrop(0, "reflect"), RandomFlip(0.0), RandomRotation(0), Cutout(0)]


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random pixels without zeros, so that zero filling shows."""
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def name(transform: object) -> str:
    return str(transform)


@pytest.mark.parametrize("transform", IDENTITIES, ids=name)
def test_at_zero_strength_nothing_changes(transform):
    images = pixels(5, 3, 8, 6)
    assert torch.equal(transform(images, seeded()), images)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_layout_do_not_change_the_pixels(transform, dtype, memory_format):
    images = pixels(6, 3, 8, 7)
    expected = transform(images, seeded())
    given = images.to(dtype).contiguous(memory_format=memory_format)
    before = given.clone()
    out = transform(given, seeded())
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))
    assert torch.equal(given, before)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name)
def test_the_generator_decides(transform):
    images = pixels(16, 3, 8, 8)
    first = transform(images, seeded(1))
    assert torch.equal(first, transform(images, seeded(1)))
    assert not torch.equal(first, transform(images, seeded(2)))
    generator = seeded(1)
    assert torch.equal(first, transform(images, generator))
    assert not torch.equal(first, transform(images, generator))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name)
def test_equal_images_get_different_draws(transform):
    images = pixels(1, 3, 8, 8).expand(32, -1, -1, -1)
    assert len(torch.unique(transform(images, seeded()).flatten(1), dim=0)) > 1


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name)
def test_an_empty_batch_stays_empty(transform):
    assert transform(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), seeded()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name)
@pytest.mark.parametrize("images", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.int64)])
def test_what_is_no_batch_of_images_is_refused(transform, images):
    with pytest.raises(ValueError, match=rf"{type(transform).__name__}: needs images \(B, C, H, W\)"):
        transform(images, seeded())


@given(st.integers(1, 5), st.integers(2, 7), st.integers(2, 7), st.integers(1, 4), st.sampled_from(["zero", "reflect"]))
@settings(max_examples=40)
def test_crop_is_a_window_of_each_padded_image(batch, height, width, padding, mode):
    if mode == "reflect" and padding >= min(height, width):
        return
    images = pixels(batch, 2, height, width).float()
    torch_mode = {"zero": "constant", "reflect": "reflect"}[mode]
    padded = F.pad(images, (padding,) * 4, mode=torch_mode)
    top, left = torch.randint(2 * padding + 1, (2, batch), generator=seeded(3))
    out = RandomCrop(padding, mode)(images, seeded(3))
    for i in range(batch):
        window = padded[i, :, top[i] : top[i] + height, left[i] : left[i] + width]
        assert torch.equal(out[i], window)


def test_crop_uses_every_offset_about_equally():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    out = RandomCrop(1)(image.expand(9000, -1, -1, -1), seeded())
    counts = out.sum((0, 1))[3:6, 3:6]
    assert counts.sum() == 9000
    assert ((counts - 1000).abs() < 5 * math.sqrt(1000)).all()


@pytest.mark.parametrize("padding", [6, 7])
def test_reflection_wider_than_the_image_is_refused(padding):
    with pytest.raises(ValueError, match=f"reflecting {padding} pixels needs images larger than that, got 8x6"):
        RandomCrop(padding, "reflect")(pixels(2, 3, 8, 6), seeded())


def test_flip_mirrors_left_and_right_with_its_probability():
    images = pixels(4000, 1, 2, 3)
    assert torch.equal(RandomFlip(1.0)(images, seeded()), images.flip(3))
    out = RandomFlip(0.25)(images, seeded())
    flipped = (out == images.flip(3)).flatten(1).all(1)
    assert torch.equal(out[~flipped], images[~flipped])
    assert flipped.float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 24)])
@pytest.mark.parametrize("degrees", [-90, -14.3, 3.7, 45, 90])
def test_rotation_equals_pillows(height, width, degrees):
    images = pixels(1, 3, height, width)
    out = rotate(images, torch.tensor([math.radians(degrees)]))[0].permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(images[0].permute(1, 2, 0).numpy()).rotate(degrees))
    # Coordinates that fall on a pixel border may round either way.
    assert (out == expected).all(2).mean() > (0.99 if degrees % 90 else 0.9)


def test_rotation_stays_within_its_range():
    image = torch.zeros(1, 1, 65, 65)
    image[0, 0, 32, 64] = 1  # right of the centre
    out = RandomRotation(30)(image.expand(2000, -1, -1, -1), seeded())
    _, _, y, _ = out.nonzero(as_tuple=True)
    angles = torch.asin((32 - y) / 32).rad2deg()
    assert angles.abs().max() < 32
    assert angles.min() < -27
    assert angles.max() > 27
    assert abs(angles.mean()) < 2


@pytest.mark.parametrize("size", [1, 3, 4, 16])
def test_cutout_is_one_square_around_its_centre_clipped_at_the_border(size):
    images = pixels(50, 3, 8, 6)
    generator = seeded(5)
    y = torch.randint(8, (50, 1), generator=generator)
    x = torch.randint(6, (50, 1), generator=generator)
    out = Cutout(size)(images, seeded(5))
    for i in range(50):
        expected = images[i].clone()
        top, left = int(y[i]) - size // 2, int(x[i]) - size // 2
        expected[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
        assert torch.equal(out[i], expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomCrop(-1), "padding must be at least 0, got -1"),
        (lambda: RandomCrop(4, "edge"), "got 'edge'"),
        (lambda: RandomFlip(1.5), "p must be within 0..1, got 1.5"),
        (lambda: RandomFlip(math.nan), "got nan"),
        (lambda: RandomRotation(-1), "got -1"),
        (lambda: RandomRotation(math.inf), "got inf"),
        (lambda: Cutout(-2), "got -2"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
