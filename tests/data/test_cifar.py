"""CIFAR readers on tiny files in the official layouts: what is read, and what is said when a file is wrong."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from longtail.data.cifar import read_cifar10, read_cifar100
from longtail.errors import LongtailError


def same(one, other):
    return torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


def test_cifar10_pickles(cifar10_python):
    full = read_cifar10(cifar10_python, False)
    assert full.train.images.shape == (100, 3, 32, 32)
    assert full.test.images.shape == (20, 3, 32, 32)
    assert full.class_names[::9] == ("airplane", "truck")
    expected = [label for part in range(1, 6) for label in np.random.default_rng(100 + part).permutation(20) % 10]
    assert full.train.targets.tolist() == expected
    first = np.random.default_rng(1).integers(0, 256, (20, 3072), dtype=np.uint8)
    assert full.train.images[19].flatten().tolist() == first[19].tolist()
    assert (full.mean, full.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_cifar10_layouts_agree(cifar10_python, cifar10_binary):
    one, other = read_cifar10(cifar10_python, False), read_cifar10(cifar10_binary, False)
    assert same(one.train, other.train)
    assert same(one.test, other.test)
    assert one.class_names == other.class_names


def test_cifar100_layouts_agree(cifar100_python, cifar100_binary):
    one, other = read_cifar100(cifar100_python, False), read_cifar100(cifar100_binary, False)
    assert same(one.train, other.train)
    assert same(one.test, other.test)
    assert one.class_names == other.class_names
    assert len(one.class_names) == 100
    assert one.train.targets.max() == 99  # the fine labels, not the 20 coarse ones


def test_root_may_be_the_folder_itself(cifar100_python):
    assert len(read_cifar100(cifar100_python / "cifar-100-python", False).train) == 400


def test_root_from_the_environment_or_the_working_folder(cifar10_python, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_DATA", str(cifar10_python))
    assert len(read_cifar10(None, False).train) == 100
    with pytest.raises(LongtailError, match=r"elsewhere \(given as root\)"):
        read_cifar10(tmp_path / "elsewhere", False)  # the argument wins
    monkeypatch.delenv("LONGTAIL_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LongtailError, match=r"\.data \(the default"):
        read_cifar10(None, False)
    (tmp_path / ".data").symlink_to(cifar10_python)
    assert len(read_cifar10(None, False).train) == 100


def test_missing_data_set_names_the_folders_and_the_fix(tmp_path):
    with pytest.raises(
        LongtailError, match="cifar10: no folder cifar-10-batches-py or cifar-10-batches-bin in"
    ) as error:
        read_cifar10(tmp_path, False)
    assert "download=True" in error.value.fix
    assert "LONGTAIL_DATA" in error.value.fix
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_missing_file_is_named(cifar10_python, name):
    (cifar10_python / "cifar-10-batches-py" / name).unlink()
    with pytest.raises(LongtailError, match=rf"{name}: cannot be read \(No such file"):
        read_cifar10(cifar10_python, False)


@pytest.mark.parametrize("name", ["data_batch_3.bin", "batches.meta.txt"])
def test_missing_binary_file_is_named(cifar10_binary, name):
    (cifar10_binary / "cifar-10-batches-bin" / name).unlink()
    with pytest.raises(LongtailError, match=rf"{name}: cannot be read \(No such file"):
        read_cifar10(cifar10_binary, False)


@pytest.mark.parametrize("keep", [0, 1, 40, 100, 5000, -1])
def test_truncated_pickle_is_named(cifar10_python, keep):
    path = cifar10_python / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LongtailError, match="data_batch_2: not a readable pickle"):
        read_cifar10(cifar10_python, False)


@pytest.mark.parametrize("keep", [-1, 3073, 5000])
def test_truncated_binary_is_named(cifar100_binary, keep):
    path = cifar100_binary / "cifar-100-binary" / "train.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LongtailError, match=r"train.bin: [\d,]+ bytes are not whole records of 3,074"):
        read_cifar100(cifar100_binary, False)


def test_empty_binary_files_are_named(cifar100_binary):
    folder = cifar100_binary / "cifar-100-binary"
    (folder / "test.bin").write_bytes(b"")
    with pytest.raises(LongtailError, match=r"test.bin: holds no image"):
        read_cifar100(cifar100_binary, False)
    (folder / "fine_label_names.txt").write_text("\n")
    with pytest.raises(LongtailError, match=r"fine_label_names.txt: names no class"):
        read_cifar100(cifar100_binary, False)


GOOD = {"data": np.zeros((2, 3072), dtype=np.uint8), "fine_labels": [0, 99]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((2, 3071), dtype=np.uint8)}, r"data must be uint8 .* not uint8 of shape \(2, 3071\)"),
        ({"data": np.zeros((2, 3072), dtype=np.int64)}, "not int64"),
        ({"data": [1, 2]}, "not list"),
        ({"fine_labels": [0, 1, 2]}, "2 images but 3 fine_labels"),
        ({"fine_labels": [0, 100]}, "label 100, but meta names 100 classes"),
        ({"fine_labels": [-1, 100]}, "label 100"),
        ({"fine_labels": [-1, 0]}, "label -1"),
        ({"fine_labels": ["a", "b"]}, "list of whole numbers"),
        ({"fine_labels": []}, "2 images but 0"),
    ],
)
def test_wrong_content_is_named(cifar100_python, change, message):
    path = cifar100_python / "cifar-100-python" / "train"
    path.write_bytes(pickle.dumps(GOOD, protocol=2))
    assert len(read_cifar100(cifar100_python, False).train) == 2
    path.write_bytes(pickle.dumps({**GOOD, **change}, protocol=2))
    with pytest.raises(LongtailError, match=message) as error:
        read_cifar100(cifar100_python, False)
    assert str(path) in str(error.value)


def test_missing_entry_is_named(cifar100_python):
    folder = cifar100_python / "cifar-100-python"
    (folder / "test").write_bytes(pickle.dumps({"data": GOOD["data"], "labels": [0, 1]}, protocol=2))
    with pytest.raises(LongtailError, match="test: has no entry 'fine_labels', only data, labels"):
        read_cifar100(cifar100_python, False)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": "apple"}, protocol=2))
    with pytest.raises(LongtailError, match="meta: fine_label_names must be a list of names"):
        read_cifar100(cifar100_python, False)
