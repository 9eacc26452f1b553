"""The benchmark of reading folders runs and reports ratios within one run."""

from __future__ import annotations

import json
import os
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
