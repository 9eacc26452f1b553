"""Exported models equal the run on real images at any batch size, carry their classes, or are not kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail import data, export, train
from longtail.errors import LongtailError, UsageError
from longtail.export import DeployedModel, _write_onnx, describe


@pytest.fixture(scope="session")
def experts(tmp_path_factory):
    """Experts behind a shared stem, asked in turn by routers."""
    out = tmp_path_factory.mktemp("routed") / "run"
    return train("digits", "ride+ea", epochs=5, out=out, precision="fp32", threads=1, compile="off", device="cpu")


def real_images(run):
    if run.config.dataset == "digits":
        return data.load("digits").test.images[::25]
    return data.load(run.config.source, image_size=20).test.images


def check_torch(run, folder):
    images = real_images(run)
    document = export.export(run, images, folder, formats=["torch"])
    assert sorted(path.name for path in Path(folder).iterdir()) == ["model.json", "model.pt2"]
    extra = {"model.json": ""}
    module = torch.export.load(folder / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["model.json"]) == describe(run)
    for size in (1, 5, len(images)):
        logits, probabilities = module(images[:size])
        np.testing.assert_allclose(logits.numpy(), run.logits(images[:size]), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities.numpy(), run.predict_proba(images[:size]), rtol=1e-4, atol=1e-5)
    return document


def test_photographs_with_crop_and_normalisation_inside(photo_run, tmp_path):
    document = check_torch(photo_run, tmp_path / "out")
    assert document["class_names"] == ["blue", "green", "red"]
    assert document["input"]["shape"] == ["batch", 3, 20, 20]
    assert document["inside_the_model"]["centre_crop"] == 16
    facts = document["files"]["model.pt2"]
    assert facts["sha256"] == hashlib.sha256((tmp_path / "out" / "model.pt2").read_bytes()).hexdigest()
    assert facts["largest_difference"] < 1e-4
    assert json.loads((tmp_path / "out" / "model.json").read_text()) == document


def test_experts_with_routers_are_one_graph(experts, tmp_path):
    check_torch(experts, tmp_path)


def test_another_prior_as_the_description_says(photo_run):
    images = real_images(photo_run)
    told = describe(photo_run)["calibration"]
    prior = np.array([0.7, 0.2, 0.1])
    scores = photo_run.logits(images) / told["temperature"] + np.log(prior) - np.log(told["reference_prior"])
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(photo_run.predict_proba(images, prior), expected, rtol=1e-4)


@pytest.mark.parametrize("fault", ["shift", "nan", "classes"])
def test_a_model_that_differs_is_not_kept(photo_run, tmp_path, monkeypatch, fault):
    def wrong(self, images):
        logits, probabilities = real(self, images)
        if fault == "shift":
            return logits + 0.01, probabilities
        if fault == "nan":
            return logits * torch.nan, probabilities
        return logits[:, :2], probabilities

    real = DeployedModel.forward
    monkeypatch.setattr(DeployedModel, "forward", wrong)
    (tmp_path / "model.pt2").write_bytes(b"from before")
    with pytest.raises(LongtailError, match=r"model.pt2 differs from the run by .* on real images"):
        export.export(photo_run, real_images(photo_run), tmp_path, formats=["torch"])
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_bytes() == b"from before"


def test_one_batch_size_only_is_not_kept(photo_run, tmp_path, monkeypatch):
    def fixed(self, images):
        logits, probabilities = real(self, images)
        return logits.view(2, -1), probabilities

    real = DeployedModel.forward
    monkeypatch.setattr(DeployedModel, "forward", fixed)
    with pytest.raises(LongtailError, match=r"cannot trace this network|does not run on a batch of|differs"):
        export.export(photo_run, real_images(photo_run), tmp_path, formats=["torch"])
    assert list(tmp_path.iterdir()) == []


def test_wrong_use(photo_run, tmp_path, monkeypatch):
    images = real_images(photo_run)
    with pytest.raises(UsageError, match="unknown format tflite"):
        export.export(photo_run, images, tmp_path, formats=["tflite"])
    with pytest.raises(UsageError, match="1 images are too few"):
        export.export(photo_run, images[:1], tmp_path, formats=["torch"])
    with pytest.raises(ValueError, match="expected uint8"):
        export.export(photo_run, images[:, :, :8], tmp_path, formats=["torch"])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LongtailError, match="cannot be written"):
        export.export(photo_run, images, tmp_path / "file", formats=["torch"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package\(s\) onnx, onnxscript, onnxruntime"):
        export.export(photo_run, images, tmp_path)


@pytest.mark.extras
def test_an_opset_that_cannot_be_written(photo_run, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    with pytest.raises(LongtailError, match="as ONNX, opset 9: the exporter wrote opset 18 instead"):
        export.export(photo_run, real_images(photo_run), tmp_path, opset=9)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extras
@pytest.mark.parametrize("which", ["photo_run", "experts"])
def test_onnx(which, request, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    run = request.getfixturevalue(which)
    images = real_images(run)
    document = export.export(run, images, tmp_path, formats=["onnx"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.onnx"]
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    assert document["files"]["model.onnx"]["opset"] == export.OPSET
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == export.OPSET
    carried = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert carried["class_names"] == list(run.task.class_names)
    assert carried["longtail"] == describe(run)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == list(run.task.image_shape)
    for size in (1, 3, len(images)):
        logits, probabilities = session.run(None, {"images": images[:size].numpy()})
        np.testing.assert_allclose(logits, run.logits(images[:size]), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(probabilities, run.predict_proba(images[:size]), atol=1e-4)


def test_a_full_disk_is_not_the_network_s_fault(photo_run, tmp_path, monkeypatch):
    def full(*words, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match="No space left"):  # which `export` tells of the folder
        _write_onnx(None, photo_run, tmp_path / "model.onnx", 20)
