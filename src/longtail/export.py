"""A trained run as one file that other programs run: torch.export and ONNX, checked against the run."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from longtail import __version__
from longtail.augment import CentreCrop
from longtail.errors import LongtailError, UsageError
from longtail.run import Run

FORMATS = ("torch", "onnx")
OPSET = 20
"""Version of ONNX's operators by default: torch's own default."""

_FILES = {"torch": "model.pt2", "onnx": "model.onnx"}
_DESCRIPTION = "model.json"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4

Arrays = NDArray[Any]
Outputs = tuple[Arrays, Arrays]


class DeployedModel(nn.Module):
    """A run as one graph: pixels to logits and calibrated probabilities.

    Crop and normalisation, the network with all its experts, the rule that makes one answer of them, and the
    temperature. What comes before is decoding an image to a square of the stored size.

    Args:
        run: A finished run.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, run: Run) -> None:
        super().__init__()
        teacher, task = run.teacher(), run.task
        self.network = teacher.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.inference = teacher.inference
        self.crop = nn.Identity() if task.crop_size is None else CentreCrop(task.crop_size)
        self.temperature = run.posterior.temperature
        # The arithmetic of `Normalize`, whose remembered tensors must not be seen by a tracer.
        std = torch.tensor(task.std, dtype=torch.float64).view(1, -1, 1, 1)
        mean = torch.tensor(task.mean, dtype=torch.float64).view(1, -1, 1, 1)
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, (B, C) float32 each, of images (B, channels, side, side), uint8."""
        normalised = torch.addcmul(self.shift, self.crop(images).to(torch.float32), self.scale)
        logits = self.inference(self.network(normalised)).float()
        return logits, (logits / self.temperature).softmax(-1)


def export(
    run: Run,
    images: Tensor,
    out: str | Path | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    opset: int = OPSET,
) -> dict[str, Any]:
    """Write a run as models for other programs, with a description beside them.

    Each model is loaded again and run on real images, one at a time, two, and all at once. Only where its logits and
    probabilities are the run's, it is put in place.

    Args:
        run: A finished run.
        images: Real images, uint8 (N, channels, side, side) with N of 2 or more, of the size of the run's.
        out: Folder of the results; None: ``export`` in the run folder. Made where it is missing.
        formats: ``torch`` (``model.pt2``), ``onnx`` (``model.onnx``), or both.
        opset: Version of ONNX's operators.

    Returns:
        The content of ``model.json``.

    Raises:
        UsageError: A format is unknown, or the packages of the extra ``onnx`` are missing.
        LongtailError: The model cannot be exported, differs from the run, or cannot be written.
    """
    _check(formats, images)
    folder = run.path / "export" if out is None else Path(out)
    model = DeployedModel(run)
    expected = _expected(run, images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as name:
            part = Path(name)
            program = _traced(model, images[:2])
            files = {}
            for form in dict.fromkeys(formats):
                path = part / _FILES[form]
                call = _write_torch(program, run, path) if form == "torch" else _write_onnx(program, run, path, opset)
                files[path.name] = {
                    **({"opset": opset} if form == "onnx" else {"torch": str(torch.__version__)}),
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "largest_difference": _compare(call, images, expected, path.name),
                }
            document = {**describe(run), "files": files, "checked_on_images": len(images)}
            (part / _DESCRIPTION).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            for path in sorted(part.iterdir()):
                path.replace(folder / path.name)
    except OSError as error:
        raise LongtailError(
            f"{folder} cannot be written: {error.strerror or error}", fix="choose another --out"
        ) from error
    return document


def _check(formats: Sequence[str], images: Tensor) -> None:
    unknown = [form for form in formats if form not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"unknown format {', '.join(unknown) or 'none'}", fix=f"use {' or '.join(FORMATS)}")
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise UsageError(
            f"ONNX needs the package(s) {', '.join(missing)}",
            fix="pip install 'longtail[onnx]', or export for torch alone with --format torch",
        )
    if len(images) < 2:
        raise UsageError(f"{len(images)} images are too few to check the exported model on; give 2 or more")


def _expected(run: Run, images: Tensor) -> Outputs:
    logits = run.logits(images)
    return logits, run.posterior.probabilities(logits)


def _traced(model: DeployedModel, example: Tensor) -> torch.export.ExportedProgram:
    """Trace the model for any batch size; the example must have two images, since one would be taken for a constant."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        with torch.no_grad(), _hushed():
            return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # broad: tracing runs all of a network's code on stand-ins, which fail in their own way
        raise LongtailError(f"torch.export cannot trace this network: {_first_line(error)}") from error


def _write_torch(program: torch.export.ExportedProgram, run: Run, path: Path) -> Callable[[Tensor], Outputs]:
    with _hushed():
        torch.export.save(program, path, extra_files={_DESCRIPTION: json.dumps(describe(run))})
        module = torch.export.load(path).module()

    def call(images: Tensor) -> Outputs:
        with torch.no_grad():
            logits, probabilities = module(images)
        return logits.numpy(), probabilities.numpy()

    return call


def _write_onnx(program: torch.export.ExportedProgram, run: Run, path: Path, opset: int) -> Callable[[Tensor], Outputs]:
    try:
        with _hushed():
            made = torch.onnx.export(
                program,
                (),
                input_names=["images"],
                output_names=["logits", "probabilities"],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            made.model.metadata_props["longtail"] = json.dumps(describe(run))
            made.model.metadata_props["class_names"] = json.dumps(run.task.class_names)
            made.save(path, external_data=False)
        written = made.model.opset_imports[""]
        if written != opset:  # the exporter takes another one where it cannot do what was asked, and says nothing
            raise ValueError(f"the exporter wrote opset {written} instead")
    except OSError:  # the folder, not the network
        raise
    except Exception as error:  # broad: the exporter's own errors are many, and an operator's may be of any type
        raise LongtailError(f"the network cannot be written as ONNX, opset {opset}: {_first_line(error)}") from error
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def call(images: Tensor) -> Outputs:
        logits, probabilities = session.run(["logits", "probabilities"], {"images": images.numpy()})
        return logits, probabilities

    return call


@contextmanager
def _hushed() -> Iterator[None]:
    """Silence what exporters say about their own insides, some of it on stdout, which belongs to the result."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _compare(call: Callable[[Tensor], Outputs], images: Tensor, expected: Outputs, name: str) -> float:
    """Return the largest difference from the run, relative to the largest logit where that is above 1.

    Raises:
        LongtailError: It is larger than rounding explains.
    """
    worst = 0.0
    for size in (1, 2, len(images)):
        try:
            found = call(images[:size])
        except Exception as error:  # broad: onnxruntime's errors have no common type but this
            raise LongtailError(f"{name} does not run on a batch of {size}: {_first_line(error)}") from error
        for ours, theirs in zip(found, expected, strict=True):
            worst = max(worst, _difference(ours, theirs[:size]))
    if not worst <= _TOLERANCE:
        raise LongtailError(
            f"{name} differs from the run by {worst:.2g} on real images; rounding explains {_TOLERANCE:g}; not kept",
            fix="please report this with the method's name and the versions in config.yaml",
        )
    return worst


def _difference(ours: Arrays, theirs: Arrays) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite]):
        return float("inf")
    scale = max(1.0, float(np.abs(theirs[finite]).max(initial=0)))
    worst = np.abs(ours[finite].astype(np.float64) - theirs[finite]).max(initial=0) / scale
    return float(worst) if np.isfinite(worst) else float("inf")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def describe(run: Run) -> dict[str, Any]:
    """Return what a program must know of an exported run: classes, input, preprocessing, outputs, calibration."""
    task, posterior = run.task, run.posterior
    channels, height, width = task.image_shape
    return {
        "longtail": __version__,
        "method": run.config.method,
        "dataset": run.config.dataset,
        "class_names": list(task.class_names),
        "class_counts": list(task.class_counts),
        "input": {
            "name": "images",
            "dtype": "uint8",
            "layout": "NCHW",
            "shape": ["batch", channels, height, width],
            "channels": "RGB" if channels == 3 else "grey",
        },
        "preprocessing": [
            {"step": "turn upright", "by": "EXIF orientation"},
            {"step": "to RGB, 8 bits", "transparent": "white"},
            {"step": "cut the centre square", "side": "the short side"},
            {"step": "resize", "size": [height, width], "filter": "bilinear, antialiased"},
            *([{"step": "to grey", "weights": [0.299, 0.587, 0.114]}] if channels == 1 else []),
        ],
        "inside_the_model": {
            "centre_crop": task.crop_size,
            "divide_by": 255,
            "mean": list(task.mean),
            "std": list(task.std),
        },
        "outputs": {
            "logits": "float32 (batch, classes)",
            "probabilities": "float32 (batch, classes): softmax(logits / temperature)",
        },
        "calibration": {
            "temperature": posterior.temperature,
            "reference_prior": posterior.reference.tolist(),
            "held_out_images": posterior.held_out,
            "for_another_prior": "softmax(logits / temperature + log(prior) - log(reference_prior))",
        },
    }
