from __future__ import annotations

import errno
import random
import re
import resource

import pytest
import torch

import longtail
from longtail import files, folder
from longtail.errors import LongtailError
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

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(LongtailError, match="No space left on device"):
        save_state(path, {"n": 2})
    assert load_state(path)["n"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_disk_that_fills_up_while_torch_writes_is_told(tmp_path):
    """Torch ends its archive all the same, which fails in words that nobody understands."""
    path, (soft, hard) = tmp_path / "state.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(LongtailError, match=r"state.pt could not be written: File too large"):
            save_state(path, {"x": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


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


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def damaged(content: bytes, whims: random.Random):
    """Bits flipped, ends and middles cut off, and stretches of zeros, at many places; and entries marked as folders."""
    marks = [found.start() + 38 for found in re.finditer(rb"PK\x01\x02", content)]
    for k in [*range(whims.randrange(20), len(content), 20), *marks]:
        bit = 4 if k in marks else whims.randrange(8)
        yield content[:k] + bytes([content[k] ^ 1 << bit]) + content[k + 1 :]
    for k in range(whims.randrange(99), len(content), 99):
        yield content[:k]
        yield content[:k] + content[k + whims.randrange(1, 60) :]
        yield content[:k] + bytes(min(64, len(content) - k)) + content[k + 64 :]


def test_a_damaged_byte_is_refused_or_does_not_matter(tmp_path):
    """Whatever happens to the file, a run never goes on with other numbers than those that were saved."""
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "state.pt"
    saved = {"network": dict(network.state_dict()), "optimizer": optimizer.state_dict(), "best": None}
    save_state(path, {**saved, "position": {"stage": 0, "loss_sum": 0.5}, "history": [{"loss": 1.0, "stage": "train"}]})
    content, whole = path.read_bytes(), load_state(path)
    loaded, refusals = 0, []
    for changed in damaged(content, random.Random(0)):
        path.write_bytes(changed)
        try:
            found = load_state(path)
        except LongtailError as error:
            refusals.append(error.message)
        else:
            loaded += 1
            assert equal(found, whole)
    assert 0 < loaded < len(refusals)
    assert all(told.startswith(str(path)) and "\n" not in told for told in refusals)


def test_a_state_of_another_run_is_refused(digits, plain_run, tmp_path):
    small, other = tmp_path / "small", tmp_path / "other"
    longtail.train(digits, "ce", out=small, **plain_run)
    longtail.train(digits, "ride", out=other, **plain_run)
    (small / "metrics.json").unlink()
    (small / "state.pt").write_bytes((other / "state.pt").read_bytes())
    with pytest.raises(LongtailError, match=r"state.pt does not fit the configuration beside it"):
        longtail.train(digits, "ce", out=small, resume=True, **plain_run)


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
