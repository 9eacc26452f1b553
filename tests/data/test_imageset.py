"""ImageSet and LongTailData refuse what does not fit together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from longtail.data import ImageSet, LongTailData
from longtail.data.origin import Origin


def images(n=4, channels=1, size=8):
    return torch.arange(n * channels * size * size).remainder(256).to(torch.uint8).view(n, channels, size, size)


def classes(*targets):
    return torch.tensor(targets)


@pytest.mark.parametrize(
    ("pixels", "targets", "message"),
    [
        (images().float(), classes(0, 1, 0, 1), "images must be uint8"),
        (images()[:, 0], classes(0, 1, 0, 1), r"of shape \(N, C, H, W\), not torch.uint8 of shape \(4, 8, 8\)"),
        (images(), classes(0, 1, 0, 1).int(), "targets must be int64"),
        (images(), classes(0, 1, 0, 1)[None], "targets must be int64"),
        (images(), classes(0, 1, 0), "4 images but 3 targets"),
        (images(), classes(0, -2, 0, 1), "not be negative, got -2"),
    ],
)
def test_wrong_image_sets(pixels, targets, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(pixels, targets)


def test_images_become_contiguous():
    held = ImageSet(images(channels=3).contiguous(memory_format=torch.channels_last), classes(0, 1, 0, 1))
    assert held.images.is_contiguous()
    assert torch.equal(held.images, images(channels=3))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_subset_copies_in_the_given_order(kind):
    whole = ImageSet(images(), classes(0, 1, 2, 3))
    part = whole.subset(kind([3, 1]))
    assert len(part) == 2
    assert part.targets.tolist() == [3, 1]
    assert torch.equal(part.images[0], whole.images[3])
    part.images.zero_()
    assert whole.images[3].any()
    assert len(whole.subset([])) == 0


def make(**changes):
    fields = {
        "name": "toy",
        "train": ImageSet(images(), classes(0, 0, 0, 2)),
        "test": ImageSet(images(3), classes(0, 1, 2)),
        "class_names": ("a", "b", "c"),
        "mean": (0.5,),
        "std": (0.2,),
        "dev": None,
        "train_indices": torch.arange(4),
        "imbalance": 3.0,
        "profile": "exp",
    }
    return LongTailData(**{**fields, **changes})


def test_the_fingerprint_follows_images_classes_split_and_order():
    data, pixels = make(), images() + 1
    four = ImageSet(images(), classes(0, 0, 0, 2))
    changed = (
        make(train=ImageSet(pixels, classes(0, 0, 0, 2))),
        make(train=ImageSet(images(), classes(0, 0, 1, 2))),
        make(train=four.subset([1, 0, 2, 3])),
        make(test=ImageSet(pixels[:3], classes(0, 1, 2))),
        make(dev=ImageSet(images(1), classes(0))),
    )
    assert len({data.fingerprint, *(other.fingerprint for other in changed)}) == 1 + len(changed)
    assert make(name="other", train_indices=torch.arange(4) + 1).fingerprint == data.fingerprint
    assert dataclasses.replace(data, train=changed[0].train).fingerprint == changed[0].fingerprint


def test_the_fingerprint_of_images_from_files_reads_no_pixel():
    origin = Origin("here", "0123", 8, "cache", (), (), {})
    data, other = make(origin=origin), dataclasses.replace(origin, fingerprint="4567")
    assert make(origin=origin, train=ImageSet(images() + 1, data.train.targets)).fingerprint == data.fingerprint
    assert make(origin=origin, train=ImageSet(images(), classes(0, 0, 1, 2))).fingerprint != data.fingerprint
    assert make(origin=other).fingerprint != data.fingerprint != make().fingerprint


def test_properties_count_empty_classes():
    data = make()
    assert data.num_classes == 3
    assert data.class_counts == [3, 0, 1]
    assert data.image_shape == (1, 8, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a", "b")}, "toy: train has class 2, but only 2 classes"),
        ({"test": ImageSet(images(1), classes(3))}, "test has class 3"),
        ({"dev": ImageSet(images(1, size=4), classes(1))}, r"dev images are \(1, 4, 4\), training images \(1, 8, 8\)"),
        ({"mean": (0.5, 0.5, 0.5)}, "3 means and 1 stds for 1 channels"),
        ({"train_indices": torch.arange(3)}, "3 train_indices for 4 training images"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
