"""The state of a run on disk: written atomically, loadable with ``weights_only=True``, refused when it is not ours."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from longtail.errors import LongtailError

STATE_VERSION = 1


def write_atomically(path: Path, write: Any) -> None:
    """Write a file so that a kill or a full disk leaves the old one whole.

    Args:
        path: The file.
        write: Called with an open binary file.

    Raises:
        LongtailError: The file could not be written; what was there before is untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LongtailError(
            f"{path} could not be written: {error.strerror or error}",
            fix="the file from before is untouched; make room or permit writing, then resume",
        ) from error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state atomically."""
    write_atomically(path, lambda file: torch.save({"version": STATE_VERSION, **state}, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read a run's state.

    Raises:
        LongtailError: The file is not a state, is damaged, or is of another version of the format.
    """
    try:
        _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows in the archive, the pickle or a tensor, as whatever comes first
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LongtailError(
            f"{path} cannot be read as a state file: {reason}", fix="start again in a new folder"
        ) from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != STATE_VERSION:
        raise LongtailError(
            f"{path} is of state version {version!r}; this longtail reads version {STATE_VERSION}",
            fix="finish the run with the version that began it, or start again in a new folder",
        )
    return dict(state)


def _check_sums(path: Path) -> None:
    """Raise an error where a byte of the content has changed: torch itself would load it as it is.

    The sums of the archive do not cover the mark of a folder; a tensor with it would be loaded as random memory.
    """
    with zipfile.ZipFile(path) as archive:
        folders = (entry.filename for entry in archive.infolist() if entry.external_attr & 0x10)
        damaged = archive.testzip() or next(folders, None)
    if damaged is not None:
        raise ValueError(f"{damaged} in it is damaged")
