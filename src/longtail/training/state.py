"""The state of a run on disk: written atomically, loadable with ``weights_only=True``, refused when it is not ours."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from longtail.errors import LongtailError
from longtail.files import explained, whole

STATE_VERSION = 1


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state atomically.

    Raises:
        LongtailError: It could not be written; the state from before is untouched.
    """
    with explained(path), whole(path) as file:
        try:
            torch.save({"version": STATE_VERSION, **state}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch still ends its archive, and that hides the disk's error
                raise error.__context__ from None
            raise


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
