"""`longtail export`: where its real images come from, what it prints, and the words where it cannot work."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
from PIL import Image

from pictures import make_folder


def test_on_the_run_s_own_data(longtail, finished):
    said = longtail("export", str(finished), "--format", "torch", "--out", "exported")
    assert said.status == 0
    assert said.out.splitlines() == ["exported/model.pt2", "exported/model.json"]
    assert "equal to the run on 64 images" in said.err
    with open("exported/model.json", encoding="utf-8") as file:
        document = json.load(file)
    assert (document["method"], document["checked_on_images"]) == ("ce", 64)
    assert document["preprocessing"][-1]["step"] == "to grey"


def test_on_images_that_are_named(longtail, photo_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(photo_run.path, run)
    config = (run / "config.yaml").read_text().replace(photo_run.config.source, str(tmp_path / "gone"))
    (run / "config.yaml").write_text(config)
    said = longtail("export", str(run), "--format", "torch")
    assert said.status == 1
    assert "the run's data set cannot be loaded" in said.err
    assert "--images FOLDER" in said.err
    assert not (run / "export").exists()
    make_folder(tmp_path / "some", {"a": 3})
    (tmp_path / "some" / "bad.png").write_bytes(b"")
    said = longtail("export", str(run), "--format", "torch", "--images", "some", "--json")
    assert said.status == 0
    assert said.json["checked_on_images"] == 3
    assert "skipped: some/bad.png: empty file" in said.err
    assert (run / "export" / "model.pt2").exists()
    Image.new("RGB", (9, 9)).save("one.png")
    said = longtail("export", str(run), "--format", "torch", "--images", "one.png")
    assert said.status == 2
    assert "2 or more are needed" in said.err


def test_without_the_packages_for_onnx(longtail, finished, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "onnx" in name else real(name, *more))
    said = longtail("export", str(finished), "--out", "exported")
    assert said.status == 2
    assert "pip install 'longtail[onnx]'" in said.err


def test_an_unfinished_run(longtail, unfinished):
    said = longtail("export", str(unfinished), "--format", "torch")
    assert said.status == 1
    assert "is not finished" in said.err


@pytest.mark.parametrize("word", ["tflite", ""])
def test_an_unknown_format(longtail, finished, word):
    assert longtail("export", str(finished), "--format", word).status == 2
