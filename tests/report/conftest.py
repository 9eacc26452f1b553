"""Finished runs on digits that the report's tests read; trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

import longtail
from longtail.run import Run

_OPTIONS = {"protocol": "quick", "epochs": 3, "precision": "fp32", "threads": 1, "compile": "off", "device": "cpu"}


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of three epochs by name: two methods with two seeds, and experts; not to be changed."""
    root = tmp_path_factory.mktemp("report") / "runs"
    wanted = {"ce-0": ("ce", 0), "ce-1": ("ce", 1), "bsce-0": ("bsce", 0), "bsce-1": ("bsce", 1), "ride": ("ride", 0)}
    return {
        name: longtail.train("digits", method, seed=seed, out=root / name, **_OPTIONS)
        for name, (method, seed) in wanted.items()
    }


@pytest.fixture(scope="session")
def runs_folder(finished_runs: dict[str, Run]) -> Path:
    """The folder that all those runs lie in."""
    return finished_runs["ce-0"].path.parent
