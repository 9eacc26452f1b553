"""The command line in this process, and a finished run that tests may read or copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from longtail.cli.main import main

FAST = ("--precision", "fp32", "--threads", "1", "--compile", "off", "--device", "cpu")


@dataclass(frozen=True)
class Said:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Tool = Callable[..., Said]


@pytest.fixture
def longtail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tool:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Said:
        capsys.readouterr()
        status = main(words)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run


@pytest.fixture
def fast() -> tuple[str, ...]:
    """Flags of a run that begins at once and depends on nothing of the machine."""
    return FAST


@pytest.fixture
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the test fail where anything trains from the call on."""

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr("longtail.training.loop.Training.run", forbidden)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs; not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "ce"
    assert main(["train", "digits", "--method", "ce", "--epochs", "2", *FAST, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """A run that was stopped after its last epoch, before its results were written."""
    folder = tmp_path / "unfinished"
    shutil.copytree(finished, folder)
    for name in ("metrics.json", "model.safetensors", "test_logits.npz"):
        (folder / name).unlink()
    return folder
