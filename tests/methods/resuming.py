"""A run that is killed and goes on, beside the run that was never killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail import folder
from longtail.data import LongTailData
from reporters import Crash


def goes_on_to_the_same_bits(
    name: str, data: LongTailData, at: int, to: Path, monkeypatch: pytest.MonkeyPatch, **options: object
) -> bool:
    """Train twice, once with a kill at step ``at``, and say whether all weights are equal."""
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    whole = longtail.train(data, name, out=to / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(data, name, out=to / "killed", reporter=Crash(at), **options)
    again = longtail.train(data, name, out=to / "killed", resume=True, **options)
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (whole, again))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
