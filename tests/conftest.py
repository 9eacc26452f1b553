"""Settings of the whole suite: one torch thread, and a small task that every training test shares."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from longtail import data

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> data.LongTailData:
    return data.load("digits")


@pytest.fixture
def plain_run() -> dict[str, object]:
    """Options of a short run whose result depends on nothing but its arguments."""
    return {"protocol": "quick", "epochs": 3, "precision": "fp32", "threads": 1, "compile": "off", "device": "cpu"}
