"""AutoAugment's operations against Pillow, and its pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from pillow_reference import BILINEAR, moved, photo, seeded

from longtail.augment import AutoAugment, Cutout
from longtail.augment.autoaugment import FILL, OPERATIONS, POLICY


def reference(name, image, strength, sign):
    """What the papers' code does to one image, with Pillow; moved pixels bilinearly."""
    tenths = strength / 9
    enhancers = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhancers:
        return enhancers[name](image).enhance(1 + sign * np.linspace(0, 0.9, 10)[strength])
    match name:
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
        case "rotate":
            return image.rotate(30 * tenths, resample=BILINEAR, fillcolor=FILL)
        case "posterize":
            return ImageOps.posterize(image, int(np.round(np.linspace(8, 4, 10))[strength]))
        case "solarize":
            return ImageOps.solarize(image, np.linspace(256, 0, 10)[strength])
        case "shear-y":
            return moved(image, (1, 0, 0, 0.3 * tenths * sign, 1, 0), FILL)
        case "translate-x":
            return moved(image, (1, 0, 150 / 331 * tenths * sign * image.width, 0, 1, 0), FILL)
        case "translate-y":
            return moved(image, (1, 0, 0, 0, 1, 150 / 331 * tenths * sign * image.height), FILL)
    raise AssertionError(name)


@pytest.mark.parametrize(("name", "strength"), sorted({(step[1], step[2]) for pair in POLICY for step in pair}))
def test_each_step_of_the_policy_is_pillows(name, strength):
    images = photo()
    signs = torch.tensor([1.0, -1.0, 1.0])
    before = images.clone()
    out = OPERATIONS[name](images, torch.full((3,), strength / 9), signs)
    assert torch.equal(images, before)
    for image, changed, sign in zip(images, out, signs.tolist(), strict=True):
        pillow = reference(name, Image.fromarray(image.permute(1, 2, 0).numpy()), strength, sign)
        difference = (changed.int() - torch.from_numpy(np.array(pillow)).permute(2, 0, 1).int()).abs()
        assert (difference <= 1).float().mean() > 0.99
        assert difference.float().mean() < 1


def test_the_policy_is_made_of_25_pairs_of_known_operations():
    assert len(POLICY) == 25
    assert {step[1] for pair in POLICY for step in pair} == set(OPERATIONS)
    assert all(0 <= p <= 1 and 0 <= strength <= 9 for pair in POLICY for p, _, strength in pair)


def outcomes(image, pair):
    """All that a pair can make of one image: each step left out, or done with either sign."""
    results = []
    for chosen in itertools.product((0, -1, 1), repeat=2):
        made = image[None]
        for (p, name, strength), sign in zip(pair, chosen, strict=True):
            if sign and p:
                made = OPERATIONS[name](made, torch.tensor([strength / 9]), torch.tensor([float(sign)]))
        results.append(made[0])
    return results


@pytest.mark.parametrize("batch", [1, 6, 30])
def test_each_image_passes_through_one_pair(batch):
    images = photo(batch)
    out = AutoAugment()(images, seeded(3))
    for image, changed in zip(images, out, strict=True):
        candidates = (made for pair in POLICY for made in outcomes(image, pair))
        assert any((changed.int() - made.int()).abs().max() <= 1 for made in candidates)


def test_steps_have_their_probabilities():
    """Inverting is the first step of the first pair (0.1) and the second of another (0.1), 25 pairs being alike."""
    images = photo(1).expand(5000, -1, -1, -1)
    out = AutoAugment()(images, seeded())
    inverted = (out == 255 - images).flatten(1).all(1).sum().item()  # alone: without contrast or equalizing beside it
    expected = 5000 / 25 * (0.1 * 0.8 + 0.1 * 0.2)
    assert abs(inverted - expected) < 5 * math.sqrt(expected)
    untouched = (out == images).flatten(1).all(1).float().mean().item()
    assert 0.05 < untouched < 0.3


def test_the_generator_decides():
    images = photo(30)
    assert torch.equal(AutoAugment()(images, seeded(1)), AutoAugment()(images, seeded(1)))
    assert not torch.equal(AutoAugment()(images, seeded(1)), AutoAugment()(images, seeded(2)))


def test_grey_and_empty_batches():
    assert AutoAugment()(photo(20)[:, :1], seeded()).shape == (20, 1, 20, 28)
    assert AutoAugment()(photo(1)[:0], seeded()).shape == (0, 3, 20, 28)


def test_normalised_images_are_refused():
    with pytest.raises(ValueError, match="needs uint8 images"):
        AutoAugment()(photo().float(), seeded())


def test_cutout_takes_half_of_the_shorter_side_where_no_size_is_given():
    images = torch.full((50, 1, 12, 20), 7, dtype=torch.uint8)
    assert torch.equal(Cutout(None)(images, seeded()), Cutout(6)(images, seeded()))
