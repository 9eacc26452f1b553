import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from pillow_reference import BILINEAR, moved, photo, seeded

from longtail.augment import RandAugment
from longtail.augment.operations import FILL
from longtail.augment.randaugment import OPERATIONS


def solarized_add(image, amount):
    return image.point([min(255, i + amount) if i < 128 else i for i in range(256)] * 3)


def reference(name, image, level, sign):
    """What timm does to one image, with Pillow."""
    factor = 1.8 * level + 0.1
    match name:
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
        case "rotate":
            return image.rotate(30 * level * sign, resample=BILINEAR, fillcolor=FILL)
        case "posterize":
            return ImageOps.posterize(image, int(4 * level)) if level else image.point([0] * 768)
        case "solarize":
            return ImageOps.solarize(image, int(256 * level))
        case "solarize-add":
            return solarized_add(image, int(110 * level))
        case "color":
            return ImageEnhance.Color(image).enhance(factor)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(factor)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(factor)
        case "sharpness":
            return ImageEnhance.Sharpness(image).enhance(factor)
        case "shear-x":
            return moved(image, (1, 0.3 * level * sign, 0, 0, 1, 0), FILL)
        case "shear-y":
            return moved(image, (1, 0, 0, 0.3 * level * sign, 1, 0), FILL)
        case "translate-x":
            return moved(image, (1, 0, 0.45 * level * sign * image.width, 0, 1, 0), FILL)
        case "translate-y":
            return moved(image, (1, 0, 0, 0, 1, 0.45 * level * sign * image.height), FILL)
    raise AssertionError(name)


@pytest.mark.parametrize("level", [0.0, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name, level):
    images = photo()
    levels, signs = torch.full((3,), level), torch.tensor([1.0, -1.0, 1.0])
    before = images.clone()
    out = OPERATIONS[name](images, levels, signs)
    assert torch.equal(images, before)
    assert (out.dtype, out.shape) == (images.dtype, images.shape)
    for image, changed, sign in zip(images, out, signs.tolist(), strict=True):
        pillow = reference(name, Image.fromarray(image.permute(1, 2, 0).numpy()), level, sign)
        difference = (changed.int() - torch.from_numpy(np.array(pillow)).permute(2, 0, 1).int()).abs()
        # Rounded or cut off; a coordinate right on the border of the image may fall to either side.
        assert (difference <= 1).float().mean() > 0.99
        assert difference.float().mean() < 1


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_an_image_of_one_colour_stays(name):
    images = torch.full((2, 3, 5, 5), 77, dtype=torch.uint8)
    assert torch.equal(OPERATIONS[name](images, torch.ones(2), torch.ones(2)), images)


@pytest.mark.parametrize("batch", [1, 7, 15, 40])
def test_each_image_passes_through_operations_of_its_own(batch):
    """With one operation always applied at full strength, each result is that of one operation on its own image."""
    images = photo(batch)
    out = RandAugment(operations=1, magnitude=10, spread=0, p=1)(images, seeded(4))
    candidates = [
        operation(images, torch.ones(batch), torch.full((batch,), sign))
        for operation in OPERATIONS.values()
        for sign in (-1.0, 1.0)
    ]
    for k in range(batch):
        # In another batch a rounded pixel may differ.
        assert any((out[k].int() - candidate[k].int()).abs().max() <= 1 for candidate in candidates)


def test_operations_are_drawn_equally_often():
    """Of an image that each operation changes in its own way, count what came out."""
    image = photo(1)
    counts = dict.fromkeys(OPERATIONS, 0)
    outcomes = {
        name: [operation(image, torch.ones(1), torch.full((1,), sign)) for sign in (-1.0, 1.0)]
        for name, operation in OPERATIONS.items()
    }
    generator = seeded()
    for _ in range(750):
        out = RandAugment(operations=1, spread=0, p=1)(image, generator)
        for name, results in outcomes.items():
            if any(torch.equal(out, result) for result in results):
                counts[name] += 1
                break
    assert sum(counts.values()) == 750
    assert all(abs(count - 50) < 5 * math.sqrt(50) for count in counts.values()), counts


def test_probability_and_number_of_operations():
    images = photo(200)
    assert torch.equal(RandAugment(p=0)(images, seeded()), images)
    assert torch.equal(RandAugment(operations=0)(images, seeded()), images)
    out = RandAugment()(images, seeded())
    untouched = (out == images).flatten(1).all(1).float().mean().item()
    # Neither operation applied: 1/4; solarize at full strength changes nothing either.
    assert 0.2 < untouched < 0.4


def test_the_generator_decides():
    images = photo(20)
    assert torch.equal(RandAugment()(images, seeded(1)), RandAugment()(images, seeded(1)))
    assert not torch.equal(RandAugment()(images, seeded(1)), RandAugment()(images, seeded(2)))


def test_grey_and_empty_batches():
    assert RandAugment(p=1)(photo(20)[:, :1], seeded()).shape == (20, 1, 20, 28)
    assert RandAugment()(photo(1)[:0], seeded()).shape == (0, 3, 20, 28)


def test_normalised_images_are_refused():
    with pytest.raises(ValueError, match="needs uint8 images"):
        RandAugment()(photo().float(), seeded())


@pytest.mark.parametrize("options", [{"operations": -1}, {"magnitude": 11}, {"spread": -1}, {"p": 1.5}])
def test_wrong_settings_are_refused(options):
    with pytest.raises(ValueError, match="RandAugment: needs"):
        RandAugment(**options)
