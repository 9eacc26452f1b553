"""The run folder: who may write into it, and the files that a run leaves there."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from longtail.config import CONFIG_NAME, RunConfig, read_config, resume_command, write_config
from longtail.data import LongTailData
from longtail.errors import LongtailError, UsageError
from longtail.files import explained, whole
from longtail.training.progress import Position
from longtail.training.state import load_state, save_state

MODEL_NAME = "model.safetensors"
LOGITS_NAME = "test_logits.npz"
KEPT_STATE = "stage-{}.pt"
"""The state of the end of a stage, by its number from 1."""
SAVE_SECONDS = 20.0
"""Least time between two states on disk; stops and ends of stages are always saved."""


@contextmanager
def alone(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a run folder against other processes inside the block; of the processes of torchrun, the first one does it.

    The system lifts the lock when its holder dies. Who holds it already may hold it again.

    Args:
        folder: The folder; made where it is missing.
        patience: Seconds to wait for another process to leave it.

    Raises:
        LongtailError: Another process holds it and does not leave, or the folder cannot be made.
    """
    if os.environ.get("RANK", "0") not in ("", "0"):
        yield
        return
    lock = FileLock(folder / ".lock", is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience)
    except Timeout:
        raise LongtailError(f"another process trains in {folder}", fix="wait until it ends, or stop it") from None
    except OSError as error:
        raise LongtailError(f"the run folder {folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


class RunFolder:
    """The files of one run. ``metrics.json`` is written last: where it is, the run is finished.

    Args:
        path: The folder; made when the run begins.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: ExitStack | None = None
        self._saved = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether the run has its metrics."""
        return (self.path / "metrics.json").exists()

    @property
    def mendable(self) -> bool:
        """Whether a result is missing that the saved state gives again."""
        missing = any(not (self.path / name).exists() for name in (MODEL_NAME, LOGITS_NAME))
        return missing and (self.path / "state.pt").exists()

    def as_begun(self, data: LongTailData) -> LongTailData:
        """Return data under the name that they had when the run began, where their contents are the same still.

        Augmentation and methods go by the name, and images that have moved may be called otherwise.
        """
        if data.origin is None or not (self.path / CONFIG_NAME).exists():
            return data
        begun, _ = read_config(self.path)
        return replace(data, name=begun.dataset) if begun.fingerprint == data.origin.fingerprint else data

    def claim(self, config: RunConfig, resume: bool, fingerprint: str) -> None:
        """Check that a run may begin here, or go on; hold the folder of one that goes on.

        Args:
            config: What is asked for.
            resume: Whether a run that is there shall go on.
            fingerprint: Of the data; see `LongTailData.fingerprint`.

        Raises:
            UsageError: The folder holds another run, or this one without ``resume``, or none with ``resume``.
            LongtailError: Another process trains here.
        """
        if not (self.path / CONFIG_NAME).exists():
            if resume:
                raise UsageError(f"{self.path} holds no run to resume", fix="leave --resume out to begin one")
            return
        there, more = read_config(self.path)
        differences = config.differences(there) or other_images(fingerprint, more)
        if differences:
            raise UsageError(
                f"{self.path} holds a run with another configuration: {'; '.join(differences)}",
                fix="choose another --out",
            )
        if not resume:
            raise UsageError(
                f"{self.path} already holds this run, {'finished' if self.finished else 'unfinished'}",
                fix="choose another --out" if self.finished else "add --resume to go on with it",
            )
        if not self.finished or self.mendable:
            self._hold()

    def begin(self) -> None:
        """Make the folder of a new run and hold it; nothing is written there before.

        Raises:
            UsageError: Another process has begun a run here since `claim`.
            LongtailError: Another process trains here.
        """
        if self._lock is not None:
            return
        self._hold()
        if (self.path / CONFIG_NAME).exists():
            raise UsageError(f"another process has begun a run in {self.path} meanwhile", fix="choose another --out")

    def _hold(self) -> None:
        stack = ExitStack()
        stack.enter_context(alone(self.path))
        self._lock = stack

    def close(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def write_request(self, config: RunConfig, **more: Any) -> None:
        """Write ``config.yaml``."""
        try:
            write_config(self.path, config, **more)
        except OSError as error:
            raise LongtailError(f"the run folder {self.path} cannot be written: {error.strerror}") from error

    def load_state(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is none yet."""
        path = self.path / "state.pt"
        return load_state(path) if path.exists() else None

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state atomically."""
        save_state(self.path / "state.pt", state)
        self._saved = time.monotonic()

    def keep_state(self, stages: int) -> None:
        """Keep the state just saved, that of the end of so many stages, for runs that begin with the same stages.

        Where that fails there is a warning and no more: those runs train the stages themselves.
        """
        state, kept = self.path / "state.pt", self.path / KEPT_STATE.format(stages)
        try:
            kept.unlink(missing_ok=True)
            try:
                os.link(state, kept)  # costs nothing: the next state is a new file
            except OSError:  # a file system without links
                with state.open("rb") as source, whole(kept) as copy:
                    shutil.copyfileobj(source, copy)
        except OSError as error:
            told = f"{kept} is not kept for other runs, this one goes on: {error.strerror or error}"
            warnings.warn(told, RuntimeWarning, stacklevel=2)

    def lent_state(self, stages: int) -> dict[str, Any] | None:
        """Return the state of the end of so many stages; None where it was not kept.

        Raises:
            LongtailError: The file is damaged.
        """
        kept = self.path / KEPT_STATE.format(stages)
        state = load_state(kept) if kept.exists() else self.load_state()
        if state is None:
            return None
        position = Position(**state["position"])
        return state if position.stage == stages and not position.entered else None

    @property
    def state_is_due(self) -> bool:
        """Whether the last state is old enough for the next one."""
        return time.monotonic() - self._saved >= SAVE_SECONDS

    def append_history(self, record: dict[str, Any]) -> None:
        """Add one epoch to ``history.jsonl``.

        Raises:
            LongtailError: It could not be written; a resumed run writes the history anew.
        """
        path = self.path / "history.jsonl"
        with explained(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def rewrite_history(self, records: Sequence[dict[str, Any]]) -> None:
        """Make ``history.jsonl`` hold these epochs: those of a resumed state, or of a borrowed first stage."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        path = self.path / "history.jsonl"
        with explained(path), whole(path) as file:
            file.write(lines.encode())

    def write_results(self, model: dict[str, Tensor], test: dict[str, Tensor], metrics: dict[str, Any]) -> None:
        """Write ``model.safetensors``, ``test_logits.npz`` and, last, ``metrics.json``."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.items()}
        arrays = {name: value.numpy() for name, value in test.items()}
        try:
            with whole(self.path / MODEL_NAME) as file:
                file.write(save(tensors))
            with whole(self.path / LOGITS_NAME) as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            with whole(self.path / "metrics.json") as file:
                file.write(json.dumps(metrics, indent=1).encode())
        except OSError as error:
            raise LongtailError(
                f"the results cannot be written to {self.path}: {error.strerror or error}",
                fix="make room, then --resume",
            ) from error


def missing_result(folder: Path, name: str) -> LongtailError:
    """Build the error for a file of results that a run folder lacks."""
    if not RunFolder(folder).finished:
        return LongtailError(f"{folder} is not finished: it has no {name}", fix=resume_command(folder))
    return LongtailError(f"{folder} is finished, but {name} is missing", fix=written_again(folder))


def written_again(folder: Path) -> str:
    """Return how the results of a finished run are written once more."""
    if (folder / "state.pt").exists():
        return f"{resume_command(folder)} writes it again"
    return "train the run again in a new folder"


def other_images(fingerprint: str, more: Mapping[str, Any]) -> list[str]:
    """Return what to say where a run's data, as its ``config.yaml`` has them, are not those of a fingerprint.

    Runs of earlier versions have none, and nothing is said of them.
    """
    there = more.get("data", {}).get("fingerprint", fingerprint)
    return (
        [] if there == fingerprint else [f"the images have changed: fingerprint {fingerprint!r} here, {there!r} there"]
    )


# What zipfile, zlib and numpy were seen to raise on archives with flipped bits and missing ends.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read_test_logits(folder: Path, *, experts: bool = False) -> dict[str, NDArray[Any]]:
    """Read ``test_logits.npz``: ``logits`` (N, C) and ``targets`` (N,).

    Args:
        folder: The run folder.
        experts: Read ``expert_logits`` (E, N, C) too, where the run has them.

    Raises:
        FileNotFoundError: The file is not there.
        LongtailError: It is damaged.
    """
    path = folder / LOGITS_NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            names = ["logits", "targets", *(["expert_logits"] if experts and "expert_logits" in content else [])]
            return {name: content[name] for name in names}
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise LongtailError(
            f"{path} is damaged: {error}",
            fix=f"remove the file, then {written_again(folder)}; without it, predictions have plain confidences",
        ) from error
