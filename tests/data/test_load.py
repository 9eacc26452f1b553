"""load(): digits as embedded, CIFAR from tiny files, dev sets, wrong use."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from longtail.data import DATASETS, dev_split, load, long_tail_counts, longtail_da_indices
from longtail.data.digits import read_digits
from longtail.errors import LongtailError, UsageError
from pictures import make_folder


def fingerprints(images):
    return [image.numpy().tobytes() for image in images.images]


def test_digits_default():
    data = load("digits")
    assert data.class_counts == [120, 77, 50, 32, 21, 13, 8, 5, 3, 2]
    assert (data.name, data.imbalance, data.profile, data.dev) == ("digits", 50.0, "exp", None)
    assert data.class_names == tuple("0123456789")
    assert data.image_shape == (1, 8, 8)
    assert torch.bincount(data.test.targets).tolist() == [50] * 10


def test_digits_pixels_are_scaled_and_split_once():
    full = read_digits()
    source = load_digits()
    assert len(full.train) + len(full.test) == len(source.images)
    scaled = sorted(np.round(image * 255 / 16).astype(np.uint8).tobytes() for image in source.images)
    assert sorted(fingerprints(full.train) + fingerprints(full.test)) == scaled
    assert int(full.train.images.max()) == 255


def test_digits_mean_and_std_are_of_the_full_set():
    full = read_digits()
    pixels = torch.cat([full.train.images, full.test.images]).double() / 255
    assert full.mean == (pytest.approx(pixels.mean().item(), abs=5e-5),)
    assert full.std == (pytest.approx(pixels.std(correction=0).item(), abs=5e-5),)


def test_digits_test_set_ignores_the_subset_seed():
    one, other = load("digits"), load("digits", subset_seed=1)
    assert torch.equal(one.test.images, other.test.images)
    assert one.class_counts == other.class_counts
    assert one.train_indices.tolist() != other.train_indices.tolist()
    assert torch.equal(one.train.images, load("digits").train.images)


def test_digits_balanced_and_step():
    assert load("digits", imbalance=1).class_counts == [120] * 10
    assert load("digits", imbalance=10, profile="step").class_counts == [120] * 5 + [12] * 5


@pytest.mark.parametrize("dev_per_class", [0, 3])
def test_train_indices_point_into_the_full_training_set(dev_per_class):
    data, full = load("digits", dev_per_class=dev_per_class), read_digits().train
    assert torch.equal(full.images[data.train_indices], data.train.images)
    assert torch.equal(full.targets[data.train_indices], data.train.targets)


def test_dev_set_is_taken_out_first():
    data, full = load("digits", dev_per_class=10), read_digits().train
    assert torch.bincount(data.dev.targets).tolist() == [10] * 10
    dev, rest = dev_split(full.targets, 10, 10)
    assert torch.equal(full.images[dev], data.dev.images)
    assert not set(dev.tolist()) & set(data.train_indices.tolist())
    counts = long_tail_counts(114, 10, 50)  # the smallest class has 124 images, 10 of them in the dev set
    assert data.train_indices.tolist() == rest[longtail_da_indices(full.targets[rest], counts)].tolist()
    assert load("digits", dev_per_class=10, subset_seed=1).dev.images.ne(data.dev.images).any()


def test_cifar100_from_files(cifar100_python):
    data = load("cifar100", root=cifar100_python, imbalance=4)
    assert data.class_counts == long_tail_counts(4, 100, 4)
    assert data.image_shape == (3, 32, 32)
    assert len(data.test) == 100
    assert load("cifar100", root=str(cifar100_python), imbalance=4).num_classes == 100


def test_imbalance_one_keeps_everything(cifar10_python, monkeypatch):
    monkeypatch.setenv("LONGTAIL_DATA", str(cifar10_python))
    assert sorted(load("cifar10", imbalance=1).train_indices.tolist()) == list(range(100))


def test_default_imbalance_of_cifar_needs_enough_images(cifar10_python):
    with pytest.raises(UsageError, match=r"imbalance 100 leaves no image for 5 of 10 classes \(classes 5 to 9\)"):
        load("cifar10", root=cifar10_python)


def test_a_class_without_an_image(cifar10_binary):
    folder = cifar10_binary / "cifar-10-batches-bin"
    with (folder / "batches.meta.txt").open("a") as names:
        names.write("eleventh\n")
    with pytest.raises(LongtailError, match=r"cifar10: class 10 \(eleventh\) has no training image"):
        load("cifar10", root=cifar10_binary)


def test_a_path_object_is_a_name(tmp_path):
    folder = make_folder(tmp_path / "photos", {"red": 6, "green": 5})
    assert load(folder).name == "photos"
    assert load(Path("digits")).name == "digits"
    for wrong in (None, (np.zeros(3), np.zeros(3))):
        with pytest.raises(UsageError, match=f"by its name or path, got {type(wrong).__name__}"):
            load(wrong)


def test_unknown_data_set():
    with pytest.raises(UsageError, match="unknown data set 'cifar-100', and no folder or file is called so") as error:
        load("cifar-100")
    assert "cifar100" in error.value.fix
    assert set(DATASETS) == {"digits", "cifar10", "cifar100"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance": 0.5}, "at least 1, got 0.5"),
        ({"imbalance": 1000}, "classes 7 to 9"),
        ({"profile": "linear"}, "unknown profile 'linear'"),
        ({"subset_seed": -1}, "subset_seed"),
        ({"subset_seed": 2**32}, "subset_seed"),
        ({"dev_per_class": -1}, "dev_per_class must not be negative"),
        ({"dev_per_class": 124}, "class '8' has 124 images, 125 are needed"),
    ],
)
def test_wrong_use(options, message):
    with pytest.raises(UsageError, match=message):
        load("digits", **options)


def test_golden_subset_through_load(real_root, golden_data):
    """The whole way once; the other cases are tested on the labels alone."""
    case = golden_data["ldamdrw_cifar100_exp_if100_seed0"]["output"]
    data = load("cifar100", root=real_root)
    assert hashlib.sha256(data.train_indices.numpy().astype("<i8").tobytes()).hexdigest() == case["sha256_int64le"]
    assert data.class_counts == case["class_counts"]
    assert (len(data.test), data.class_names[:2]) == (10000, ("apple", "aquarium_fish"))
