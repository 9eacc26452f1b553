"""The benchmarks of reading folders run, and report ratios within one run; the one of memory can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def decode(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import decode

    yield decode
    sys.modules.pop("decode")


@pytest.mark.parametrize("torchvision", [False, True])
def test_every_contender_and_its_ratios(decode, capsys, monkeypatch, torchvision):
    cache = os.environ["LONGTAIL_CACHE"]
    if torchvision:
        pytest.importorskip("torchvision", exc_type=Exception)
    else:
        monkeypatch.setattr(decode, "image_folder", lambda *arguments: None)
    decode.main(["--images", "40", "--width", "40", "--height", "30", "--size", "16", "--repeats", "1", "--json"])
    rows = {row["contender"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    ours = ["Pillow", "first epoch", "cache", "memory"]
    usual = [f"ImageFolder + DataLoader, {k} workers" for k in (0, 2)]
    assert list(rows) == (usual + ours if torchvision else ours)
    assert rows["memory"]["to_memory"] == 1
    reference = max(rows[name]["images_per_second"] for name in (usual if torchvision else ["Pillow"]))
    for row in rows.values():
        assert row["to_reference"] == pytest.approx(row["images_per_second"] / reference, rel=0.05, abs=0.01)
    assert os.environ["LONGTAIL_CACHE"] == cache


def test_contenders_see_the_same_images(decode, tmp_path):
    decode.make_images(tmp_path / "images", 20, (48, 36))
    mapped = decode.load(tmp_path / "images", 16)
    seen = {
        name: sum(float(batch.double().sum()) for batch in epoch())
        for name, epoch in {
            "pillow": decode.pillow(tmp_path / "images", 16, 4),
            "train": decode.gathered(mapped.train.images, 4),
            "test": decode.gathered(mapped.test.images, 4),
        }.items()
    }
    scale = 20 * 3 * 16 * 16
    assert seen["pillow"] / scale == pytest.approx((seen["train"] + seen["test"]) / scale, abs=0.02)


def test_training_on_a_folder_is_measured_beside_memory(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import cached_folder

    cached_folder.main(["--dataset", "digits", "--epochs", "2", "--repeats", "1", "--threads", "1", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert {name: len(values) for name, values in told["epochs"].items()} == {"memory": 1, "folder": 1}
    assert told["folder_to_memory"] == pytest.approx(told["epochs"]["folder"][0] / told["epochs"]["memory"][0])
    assert told["made_by"]["commit"]


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import memory

    yield memory
    sys.modules.pop("memory")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_training_holds_on_a_set_that_does_not_fit(memory, capsys):
    assert memory.main(["--set", "48", "--headroom", "24", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["holds"]
    assert told["copy_refused"]
    assert told["training_images"] > 24 * memory.MIB


@pytest.mark.parametrize(
    ("child", "told"),
    [
        ("import sys; sys.exit('no memory')", "training failed: no memory"),
        ("print('{\"copy_refused\": false}')", "the limit is not smaller than the set"),
    ],
)
def test_a_limit_that_breaks_training_or_limits_nothing_is_told(memory, capsys, monkeypatch, child, told):
    real = subprocess.run
    monkeypatch.setattr(memory.subprocess, "run", lambda words, **more: real([words[0], "-c", child], **more))
    monkeypatch.setattr(memory, "provenance", lambda: dict.fromkeys(("processor", "torch", "longtail", "commit"), ""))
    assert memory.main(["--set", "1"]) == 1
    assert told in capsys.readouterr().out
