"""Transforms of the tasks without labels: quarter turns, grey, and changes that only some images undergo."""

import pytest
import torch

from longtail.augment import Grey, RandomFlip, Sometimes, quarter_turns


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=8, channels=3, side=6):
    return torch.randint(0, 256, (count, channels, side, side), generator=generator(), dtype=torch.uint8)


@pytest.mark.parametrize("count", [1, 3, 8, 10])
def test_turned_images_are_the_images_turned_back(count):
    batch = images(count).float().contiguous(memory_format=torch.channels_last)
    turned, turns = quarter_turns(batch)
    back = torch.stack([image.rot90(-int(turn), (1, 2)) for image, turn in zip(turned, turns, strict=True)])
    order = [int((batch == image).flatten(1).all(1).nonzero()[0]) for image in back]
    assert sorted(order) == list(range(count))
    assert turned.is_contiguous(memory_format=torch.channels_last)
    counts = torch.bincount(turns, minlength=4)
    assert counts.max() - counts.min() <= 1


def test_which_image_is_turned_how_is_drawn_anew():
    batch = images(16)
    torch.manual_seed(0)
    first, second = quarter_turns(batch)[0], quarter_turns(batch)[0]
    assert not torch.equal(first, second)


def test_oblong_images_cannot_be_turned():
    with pytest.raises(ValueError, match="must be square to be turned, got 4x6"):
        quarter_turns(torch.zeros(2, 3, 4, 6))


def test_grey_is_what_pillow_says():
    from PIL import Image

    batch = images()
    ours = Grey()(batch)
    for image, expected in zip(ours, batch, strict=True):
        pillow = Image.fromarray(expected.permute(1, 2, 0).numpy()).convert("L")
        theirs = torch.tensor(list(pillow.tobytes()), dtype=torch.uint8).view(6, 6)
        assert (image.int() - theirs.int()).abs().max() <= 1  # Pillow rounds its weights
        assert torch.equal(image, image[:1].expand_as(image))
    one = images(channels=1)
    assert torch.equal(Grey()(one), one)


def test_some_images_change_and_the_others_stay():
    batch = images(200)
    changed = Sometimes(RandomFlip(1.0), 0.3)(batch, generator())
    flipped = (changed == batch.flip(3)).flatten(1).all(1)
    kept = (changed == batch).flatten(1).all(1)
    assert (flipped | kept).all()
    assert 30 <= int(flipped.sum()) <= 90
    assert torch.equal(Sometimes(RandomFlip(1.0), 0.0)(batch, generator()), batch)
    assert torch.equal(Sometimes(RandomFlip(1.0), 1.0)(batch, generator()), batch.flip(3))


def test_a_probability_above_one_is_refused():
    with pytest.raises(ValueError, match=r"p must be within 0\.\.1, got 1\.5"):
        Sometimes(Grey(), 1.5)
