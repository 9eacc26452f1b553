"""CIFAR-10 and CIFAR-100 from the layouts of their official archives, Python pickles or binary files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longtail.data.download import Archive, fetch
from longtail.data.fullset import FullSet
from longtail.data.imageset import ImageSet
from longtail.data.pickles import read_pickle
from longtail.data.root import data_root
from longtail.errors import LongtailError

# As the long-tail papers normalise both sets.
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_ROW = 3 * 32 * 32
_AGAIN = "unpack the archive again"
_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"

_Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class _Layout:
    """One way in which a CIFAR set lies on disk."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    read_part: Callable[[Path], _Part]
    read_names: Callable[[Path], tuple[str, ...]]


def read_cifar10(root: Path | None, download: bool) -> FullSet:
    """Read CIFAR-10 (Krizhevsky, 2009; 50,000 and 10,000 images of 10 classes); see `longtail.data.load`."""
    return _read("cifar10", _CIFAR10, _CIFAR10_ARCHIVE, root, download)


def read_cifar100(root: Path | None, download: bool) -> FullSet:
    """Read CIFAR-100 with its fine labels (Krizhevsky, 2009; 50,000 and 10,000 images of 100 classes)."""
    return _read("cifar100", _CIFAR100, _CIFAR100_ARCHIVE, root, download)


def _read(name: str, layouts: tuple[_Layout, ...], archive: Archive, root: Path | None, download: bool) -> FullSet:
    where, origin = data_root(root)
    found = _find(layouts, where)
    if found is None and download:
        fetch(archive, where)
        found = _find(layouts, where)
    if found is None:
        folders = " or ".join(layout.folder for layout in layouts)
        raise LongtailError(
            f"{name}: no folder {folders} in {where.resolve()} ({origin})",
            fix="fetch it with --download (download=True), or name the folder that holds it with --data-root or "
            f"LONGTAIL_DATA; see {_PAGE}",
        )
    layout, folder = found
    names = layout.read_names(folder / layout.names)
    parts = [_read_part(layout, folder / file, len(names)) for file in layout.train]
    test = _read_part(layout, folder / layout.test, len(names))
    return FullSet(
        train=_image_set(np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts])),
        test=_image_set(*test),
        class_names=names,
        mean=_MEAN,
        std=_STD,
        default_imbalance=100,
    )


def _find(layouts: tuple[_Layout, ...], root: Path) -> tuple[_Layout, Path] | None:
    """The first layout that lies in the root, or that the root itself is."""
    for layout in layouts:
        for folder in (root / layout.folder, root):
            if folder.name == layout.folder and folder.is_dir():
                return layout, folder
    return None


def _read_part(layout: _Layout, path: Path, num_classes: int) -> _Part:
    rows, labels = layout.read_part(path)
    if not len(labels):
        raise LongtailError(f"{path}: holds no image", fix=_AGAIN)
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels.max() if labels.max() >= num_classes else labels.min()
        raise LongtailError(f"{path}: has label {wrong}, but {layout.names} names {num_classes} classes", fix=_AGAIN)
    return rows, labels


def _image_set(rows: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> ImageSet:
    return ImageSet(torch.from_numpy(rows.reshape(-1, 3, 32, 32)), torch.from_numpy(labels))


def _pickled_part(label_key: str) -> Callable[[Path], _Part]:
    """A reader of one pickled batch whose labels are under ``label_key``."""

    def read(path: Path) -> _Part:
        content = read_pickle(path)
        rows, labels = (_entry(path, content, key) for key in ("data", label_key))
        if not (isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == _ROW):
            seen = f"{rows.dtype} of shape {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise LongtailError(f"{path}: data must be uint8 of shape (N, {_ROW}), not {seen}")
        if not (isinstance(labels, list) and all(isinstance(label, int) for label in labels)):
            raise LongtailError(f"{path}: {label_key} must be a list of whole numbers")
        if len(rows) != len(labels):
            raise LongtailError(f"{path}: {len(rows)} images but {len(labels)} {label_key}; one label an image")
        return rows, np.asarray(labels, dtype=np.int64)

    return read


def _pickled_names(key: str) -> Callable[[Path], tuple[str, ...]]:
    """A reader of the class names under ``key`` of a pickle."""

    def read(path: Path) -> tuple[str, ...]:
        names = _entry(path, read_pickle(path), key)
        if not (isinstance(names, list) and names and all(isinstance(name, bytes | str) for name in names)):
            raise LongtailError(f"{path}: {key} must be a list of names")
        return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)

    return read


def _entry(path: Path, content: dict[str, Any], key: str) -> Any:
    if key not in content:
        raise LongtailError(f"{path}: has no entry {key!r}, only {', '.join(sorted(content)) or 'nothing'}")
    return content[key]


def _binary_part(label_bytes: int) -> Callable[[Path], _Part]:
    """A reader of records of ``label_bytes`` labels (the last one counts) and 3,072 pixels."""

    def read(path: Path) -> _Part:
        raw = np.frombuffer(_bytes(path), dtype=np.uint8)
        record = label_bytes + _ROW
        if len(raw) % record:
            raise LongtailError(
                f"{path}: {len(raw):,} bytes are not whole records of {record:,} bytes; cut short or damaged",
                fix=_AGAIN,
            )
        records = raw.reshape(-1, record)
        return records[:, label_bytes:].copy(), records[:, label_bytes - 1].astype(np.int64)

    return read


def _text_names(path: Path) -> tuple[str, ...]:
    """Class names, one a line."""
    names = tuple(_bytes(path).decode("utf-8", "replace").split())
    if not names:
        raise LongtailError(f"{path}: names no class", fix=_AGAIN)
    return names


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LongtailError(f"{path}: cannot be read ({error.strerror})", fix=_AGAIN) from error


def _batches(suffix: str) -> tuple[str, ...]:
    return tuple(f"data_batch_{k}{suffix}" for k in range(1, 6))


_CIFAR10 = (
    _Layout(
        "cifar-10-batches-py",
        _batches(""),
        "test_batch",
        "batches.meta",
        _pickled_part("labels"),
        _pickled_names("label_names"),
    ),
    _Layout(
        "cifar-10-batches-bin",
        _batches(".bin"),
        "test_batch.bin",
        "batches.meta.txt",
        _binary_part(1),
        _text_names,
    ),
)
_CIFAR100 = (
    _Layout(
        "cifar-100-python", ("train",), "test", "meta", _pickled_part("fine_labels"), _pickled_names("fine_label_names")
    ),
    _Layout("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", _binary_part(2), _text_names),
)
_CIFAR10_ARCHIVE = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py"
)
_CIFAR100_ARCHIVE = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python"
)
