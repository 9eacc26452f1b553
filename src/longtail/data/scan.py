"""A look at every file once: its digest and header, remembered until the file changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from longtail.data.decode import UnreadableError, open_file, read_header
from longtail.files import whole

A = TypeVar("A")
B = TypeVar("B")

Tell = Callable[[str, int, int], None]
"""Hears of progress: (what is being done, how many are done, of how many)."""

_FORMAT = 1
_BETWEEN_TELLS = 32
_FRESH_SECONDS = 2.0  # a file changed this recently may change again without a change of its time stamp


class Seen(NamedTuple):
    """What is known of a file.

    Attributes:
        size: Bytes.
        mtime_ns: When it was last changed.
        digest: Of its bytes; empty where it cannot be read.
        width: In pixels, 0 where it is no image; likewise the next three.
        height: In pixels.
        mode: Pillow's name of the colour mode.
        format: Pillow's name of the format.
        kind: One of `longtail.data.problems.KINDS`, empty where nothing is wrong.
        detail: What was seen of the problem.
    """

    size: int
    mtime_ns: int
    digest: str
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    kind: str = ""
    detail: str = ""


def tell_nobody(what: str, done: int, total: int) -> None:
    """Hear of progress and say nothing."""


def scan(paths: Sequence[Path], memory: Path, tell: Tell) -> list[Seen]:
    """Look at files, in parallel; those that have not changed since the last time are not opened.

    Args:
        paths: The files.
        memory: Where the findings are kept; may be lost at any time.
        tell: Hears of progress.

    Returns:
        One record a file, in order.
    """
    known = _recall(memory)
    began = time.time_ns()

    def look(path: Path) -> Seen:
        before = known.get(os.fspath(path))
        return before if before is not None and _unchanged(path, before) else _look(path)

    found = list(in_parallel(look, paths, "reading", tell))
    settled = began - int(_FRESH_SECONDS * 1e9)
    _remember(memory, {os.fspath(p): s for p, s in zip(paths, found, strict=True) if 0 < s.mtime_ns < settled})
    return found


def in_parallel(function: Callable[[A], B], items: Sequence[A], what: str, tell: Tell) -> Iterator[B]:
    """Apply a function to all items in threads, and yield the results in order; no more than a few wait at a time.

    Threads, since Pillow decodes and `hashlib` counts outside the interpreter's lock. Pillow's warnings about odd files
    are silenced; what matters of them is a `Problem`.
    """
    workers = min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    waiting: deque[Future[B]] = deque()
    left = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            waiting.extend(pool.submit(function, item) for item in islice(left, 4 * workers))
            for done in range(len(items)):
                if done % _BETWEEN_TELLS == 0:
                    tell(what, done, len(items))
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(left, 1))
            tell(what, len(items), len(items))
    finally:
        pool.shutdown(cancel_futures=True)


def _unchanged(path: Path, before: Seen) -> bool:
    try:
        now = path.stat()
    except (OSError, ValueError):
        return False
    same = (now.st_size, now.st_mtime_ns) == (before.size, before.mtime_ns)
    return same and os.access(path, os.R_OK)  # a change of permission changes neither


def _look(path: Path) -> Seen:
    status = (0, 0)
    digest = ""
    try:
        with open_file(path) as file:
            told = os.fstat(file.fileno())
            status = (told.st_size, told.st_mtime_ns)
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()  # type: ignore[arg-type]
            file.seek(0)
            header = read_header(file, path)
    except UnreadableError as error:
        return Seen(*status, digest, kind=error.kind, detail=error.detail)
    except OSError as error:  # reading failed half-way
        return Seen(0, 0, "", kind="no access", detail=error.strerror or str(error))
    kind, detail = header.oddity(path.name)
    return Seen(*status, digest, header.width, header.height, header.mode, header.format, kind, detail)


def _recall(memory: Path) -> dict[str, Seen]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
        files = content["files"] if content["format"] == _FORMAT else {}
        return {path: Seen(*values) for path, values in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(memory: Path, files: dict[str, Seen]) -> None:
    text = json.dumps({"format": _FORMAT, "files": files})
    with contextlib.suppress(OSError):  # the next time is slower, no more
        memory.parent.mkdir(parents=True, exist_ok=True)
        with whole(memory) as file:
            file.write(text.encode())
