"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from longtail.errors import LongtailError


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name when all that was written is on disk; until then, what was there stays.

    Args:
        path: The file; its folder is there.

    Raises:
        OSError: It cannot be written; nothing half done is left behind.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # not of mkstemp, whose files are one's own only
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # Ctrl-C too; it goes on its way
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of a run's file that could not be written inside the block what to do.

    Args:
        path: The file.

    Raises:
        LongtailError: In place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise LongtailError(
            f"{path} could not be written: {error.strerror or error}",
            fix="make room or permit writing, then resume",
        ) from error
