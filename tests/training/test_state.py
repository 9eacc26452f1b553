from __future__ import annotations

import errno

import pytest
import torch

import longtail
from longtail import folder
from longtail.errors import LongtailError
from longtail.training import state
from longtail.training.loop import DivergedError
from longtail.training.progress import SilentReporter
from longtail.training.state import load_state, save_state


def test_state_round_trip(tmp_path):
    save_state(tmp_path / "state.pt", {"x": torch.arange(3), "n": 1})
    loaded = load_state(tmp_path / "state.pt")
    assert loaded["n"] == 1
    assert torch.equal(loaded["x"], torch.arange(3))


def test_a_full_disk_leaves_the_former_state(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_state(path, {"n": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state.os, "fsync", full)
    with pytest.raises(LongtailError, match="No space left on device"):
        save_state(path, {"n": 2})
    assert load_state(path)["n"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04broken"])
def test_damaged_states_are_refused(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(LongtailError, match="cannot be read as a state file"):
        load_state(tmp_path / "state.pt")


def test_a_truncated_state_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"x": torch.zeros(10_000)})
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(LongtailError, match="cannot be read as a state file"):
        load_state(path)


def test_a_hostile_state_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"version": 1, "x": Hostile()}, tmp_path / "state.pt")
    with pytest.raises(LongtailError, match="cannot be read as a state file"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_state_of_another_version_is_refused(tmp_path):
    torch.save({"version": 99}, tmp_path / "state.pt")
    with pytest.raises(LongtailError, match="version 99; this longtail reads version 1"):
        load_state(tmp_path / "state.pt")


def test_nan_loss_stops_and_keeps_the_last_good_state(digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    good = {}

    class Watch(SilentReporter):
        def epoch(self, record):
            good["epochs"] = record["epoch"]

    options = {**plain_run, "epochs": 12, "lr": 1e18, "warmup": 10}
    with pytest.raises(DivergedError, match=r"in epoch .* of stage 'train' at learning rate"):
        longtail.train(digits, "ce", out=tmp_path / "run", reporter=Watch(), **options)
    assert not (tmp_path / "run" / "metrics.json").exists()
    path = tmp_path / "run" / "state.pt"
    if good:
        kept = load_state(path)
        assert kept["position"]["epoch"] == good["epochs"]
        assert all(torch.isfinite(v).all() for v in kept["network"].values() if v.is_floating_point())
    else:
        assert not path.exists()
