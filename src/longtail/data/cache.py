"""Decoded images on disk, as one file of uint8 that training maps into memory.

A cache is a folder that appears whole or not at all: it is made under a temporary name by the one process that holds a
lock, and renamed when its bytes are on disk. A process that is killed leaves nothing but a temporary folder, which the
next one removes; a process that comes second waits and finds the folder there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from longtail.data.decode import Pixels, UnreadableError, read_image
from longtail.data.scan import Tell, in_parallel
from longtail.errors import LongtailError
from longtail.files import whole

_PIXELS, _FACTS = "pixels.u8", "cache.json"
_FORMAT = 1
_COPIED = 1 << 30  # subsets of up to 1 GiB live in memory
_LASTING = frozenset({"not an image", "damaged", "too large"})
"""Problems that lie in a file's bytes. A cache is named after those bytes, so it may remember these and no others."""

Rows = npt.NDArray[np.int64]


def cache_root() -> Path:
    """Return the folder of the caches: ``LONGTAIL_CACHE``, else ``longtail`` in the user's cache folder."""
    if named := os.environ.get("LONGTAIL_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "longtail"


@dataclass(frozen=True)
class Cache:
    """A finished cache.

    Attributes:
        folder: Where it lies.
        size: Side of the images.
        decoded: Position of each row's file in the list that the cache was made from.
        damaged: Position of each file that could not be decoded, and so has no row; with kind and detail of the
            problem.
    """

    folder: Path
    size: int
    decoded: Rows
    damaged: dict[int, tuple[str, str]]

    def images(self) -> Tensor:
        """Map all images into memory, (N, 3, size, size), uint8, read-only; pages are read when they are used."""
        return _mapped(self.folder / _PIXELS, len(self.decoded), self.size)

    def subset(self, images: Tensor, rows: Rows) -> Tensor:
        """Return some of the images as a tensor of their own: a view, a copy, or a file beside the cache if large.

        Args:
            images: What `images` returned.
            rows: Which rows, in the order wanted.

        Raises:
            LongtailError: There is no such file yet, and no room for it or no permission.
        """
        if len(rows) and (np.diff(rows) == 1).all():
            return images[int(rows[0]) : int(rows[-1]) + 1]
        if len(rows) * images[:1].numel() <= _COPIED:
            return images[torch.from_numpy(rows)]
        path = self.folder / f"rows-{_digest(rows)}.u8"
        if not path.exists():  # first of all, since a folder may be there to be read only
            with _writing(self.folder), _locked(path) as held:
                if not path.exists():
                    _write_rows(path, images, rows, alone=held)
        return _mapped(path, len(rows), self.size)


def open_cache(name: str, paths: Sequence[Path], size: int, tell: Tell) -> Cache:
    """Open the cache of some files, after making it where there is none.

    Args:
        name: Name that says what is in it: contents and settings, so that equal names have equal pixels.
        paths: The files; a file that cannot be decoded has no row, and later ones move up.
        size: Side of the images.
        tell: Hears of progress.

    Raises:
        LongtailError: The folder of the caches cannot be written, or has no room; or a file that was there when the
            name was made is not any more.
    """
    folder = cache_root() / name
    found = _read(folder, size)
    if found is not None:
        return found
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder) as held:
            return _read(folder, size) or _make(folder, paths, size, tell, alone=held)


def _read(folder: Path, size: int) -> Cache | None:
    """Return the cache in a folder; None where there is none, or one that is not whole."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        decoded = np.asarray(facts["decoded"], dtype=np.int64)
        whole = (folder / _PIXELS).stat().st_size == len(decoded) * 3 * size * size
        damaged = {int(k): (str(kind), str(detail)) for k, (kind, detail) in facts["damaged"].items()}
        return Cache(folder, size, decoded, damaged) if whole and facts["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _make(folder: Path, paths: Sequence[Path], size: int, tell: Tell, *, alone: bool) -> Cache:
    """Decode everything into a temporary folder and give it its name; see `_remove_left_over` of ``alone``."""
    _remove_left_over(folder, alone)
    _check_room(folder.parent, len(paths) * 3 * size * size)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")  # mkdtemp's folders are one's own only
    part.mkdir()
    try:
        decoded: list[int] = []
        damaged: dict[int, tuple[str, str]] = {}
        with whole(part / _PIXELS) as file:
            for k, answer in enumerate(in_parallel(partial(_decode, size=size), paths, "decoding", tell)):
                if isinstance(answer, UnreadableError):
                    if answer.kind not in _LASTING:
                        raise LongtailError(
                            f"{answer.message} now, and it could be read a moment ago",
                            fix="give the command again when the files stay as they are",
                        ) from answer
                    damaged[k] = answer.kind, answer.detail
                else:
                    # Written, not mapped: a full disk is then an error and not a signal that ends the process.
                    file.write(answer.data)
                    decoded.append(k)
        facts = {"format": _FORMAT, "decoded": decoded, "damaged": damaged}
        (part / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        return _named(part, folder, Cache(folder, size, np.asarray(decoded, dtype=np.int64), damaged))
    except BaseException:  # Ctrl-C too; it goes on its way
        shutil.rmtree(part, ignore_errors=True)
        raise


def _named(part: Path, folder: Path, made: Cache) -> Cache:
    """Give a finished cache its name. Without locks another process may have been faster; then its cache stays."""
    try:
        if _read(folder, made.size) is None and folder.exists():  # not whole, or of an older format
            shutil.rmtree(folder)
        part.replace(folder)
    except OSError:
        theirs = _read(folder, made.size)
        if theirs is None:
            raise
        shutil.rmtree(part, ignore_errors=True)
        return theirs
    return made


def _write_rows(path: Path, images: Tensor, rows: Rows, *, alone: bool) -> None:
    """Write some of the images to a file of their own; see `_remove_left_over` of ``alone``."""
    _remove_left_over(path, alone)
    _check_room(path.parent, len(rows) * images[:1].numel())
    with whole(path) as file:
        for row in rows.tolist():
            file.write(images[row].numpy().data)


def _remove_left_over(path: Path, alone: bool) -> None:
    """Remove what killed processes left of a path.

    Args:
        path: What they were about to make.
        alone: Whether its lock is held; if not, the owners may be alive, and nothing is removed.
    """
    for part in path.parent.glob(f".{path.name}.*.part") if alone else ():
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _decode(path: Path, size: int) -> Pixels | UnreadableError:
    """Return the pixels of a file, or why there are none."""
    try:
        return read_image(path, size)
    except UnreadableError as error:
        return error


def _mapped(path: Path, rows: int, size: int) -> Tensor:
    if not rows:  # an empty file cannot be mapped
        return torch.empty((0, 3, size, size), dtype=torch.uint8)
    pixels = np.memmap(path, dtype=np.uint8, mode="r", shape=(rows, 3, size, size))
    with warnings.catch_warnings():
        # Torch has no read-only tensors. Nothing writes into a data set, and a private writable mapping would count
        # against the machine's memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(pixels)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LongtailError(
            f"the decoded images take {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free",
            fix="use a smaller --image-size, or name a folder with room in LONGTAIL_CACHE",
        )


def _digest(rows: Rows) -> str:
    return hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say of a cache that cannot be written inside the block what to do."""
    try:
        yield
    except OSError as error:
        raise LongtailError(
            f"the cache {folder} cannot be written ({error.strerror or error})",
            fix="name a folder with room in LONGTAIL_CACHE",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold the lock that belongs to a path; others wait. The system frees it when a process ends, however it ends.

    Yields:
        Whether it is held. Not every file system has locks; there two processes do the same work, each under a
        temporary name of its own.
    """
    # No file that stands for a lock: it would outlive a process that is killed on another machine.
    lock = FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    with contextlib.suppress(OSError):
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()
