"""Tiny data sets in the official CIFAR layouts, and the real ones where this machine has them."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from longtail.data.cifar import read_cifar10, read_cifar100

REPOSITORY = Path(__file__).parents[2]
FINE_NAMES = [f"fine{i:02d}" for i in range(100)]
NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def rows_for(labels, seed=0):
    """A different image for each label: (N, 3072) uint8 rows."""
    return np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)


def python2_pickle(value):
    """`value` as Python 2 and numpy 1 wrote it into the official files (protocol 2, byte strings)."""
    if isinstance(value, str):
        return b"T" + struct.pack("<i", len(value)) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(python2_pickle(item) for item in value) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2_pickle(k) + python2_pickle(v) for k, v in value.items()) + b"u"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(python2_pickle(size) for size in value.shape) + b"\x86"
    return array + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", value.size) + value.tobytes() + b"tb"


def python2_dump(path, value):
    path.write_bytes(b"\x80\x02" + python2_pickle(value) + b".")


def python3_dump(path, value):
    """As someone with a new Python and numpy would write the file for others to read."""
    path.write_bytes(pickle.dumps(value, protocol=2))


def labels10(part):
    """20 labels of a batch, two of each class, in an order of its own."""
    return np.random.default_rng(100 + part).permutation(np.arange(20) % 10).tolist()


@pytest.fixture
def cifar10_python(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for part in range(1, 7):
        name = f"data_batch_{part}" if part < 6 else "test_batch"
        labels = labels10(part)
        python2_dump(folder / name, {"batch_label": name, "labels": labels, "data": rows_for(labels, part)})
    python2_dump(folder / "batches.meta", {"label_names": NAMES10, "num_vis": 3072})
    return tmp_path


@pytest.fixture
def cifar10_binary(tmp_path):
    folder = tmp_path / "binary" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for part in range(1, 7):
        labels = labels10(part)
        records = np.column_stack([np.asarray(labels, dtype=np.uint8), rows_for(labels, part)])
        (folder / (f"data_batch_{part}.bin" if part < 6 else "test_batch.bin")).write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES10) + "\n\n")
    return folder.parent


def labels100(split):
    size, seed = {"train": (400, 7), "test": (100, 8)}[split]
    return np.random.default_rng(seed).permutation(np.arange(size) % 100).tolist()


@pytest.fixture
def cifar100_python(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for split in ("train", "test"):
        labels = labels100(split)
        coarse = [label // 5 for label in labels]
        content = {"fine_labels": labels, "coarse_labels": coarse, "data": rows_for(labels, len(labels))}
        python3_dump(folder / split, content)
    python3_dump(folder / "meta", {"fine_label_names": FINE_NAMES, "coarse_label_names": ["a"] * 20})
    return tmp_path


@pytest.fixture
def cifar100_binary(tmp_path):
    folder = tmp_path / "binary" / "cifar-100-binary"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        fine = np.asarray(labels100(split), dtype=np.uint8)
        records = np.column_stack([fine // 5, fine, rows_for(fine, len(fine))])
        (folder / f"{split}.bin").write_bytes(records.tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(FINE_NAMES) + "\n")
    return folder.parent


@pytest.fixture(scope="session")
def golden_data():
    cases = json.loads((REPOSITORY / "tests" / "golden" / "data.json").read_text())["cases"]
    return {case["id"]: case for case in cases}


@pytest.fixture(scope="session")
def real_root():
    """Where the real CIFAR-10 and CIFAR-100 lie; skips where this machine does not have them."""
    root = Path(os.environ.get("LONGTAIL_DATA") or REPOSITORY / ".data")
    for pattern in ("cifar-10-*", "cifar-100-*"):
        if not list(root.glob(pattern)):
            pytest.skip(f"no real CIFAR in {root}")
    return root


@pytest.fixture(scope="session")
def real_targets(real_root):
    """Labels of the real training sets in file order."""
    sets = {"cifar10": read_cifar10(real_root, False), "cifar100": read_cifar100(real_root, False)}
    return {name: full.train.targets.numpy() for name, full in sets.items()}
