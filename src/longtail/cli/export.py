"""`longtail export`: a run as a model for other programs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from longtail.cli.arguments import parse
from longtail.cli.output import note, say, say_json
from longtail.cli.setup import Unset
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from longtail.run import Run

_CHECKED = 64


@dataclass(frozen=True)
class Export:
    """Write a run as a model for other programs: torch.export (model.pt2), ONNX (model.onnx), and a description.

    Preprocessing, classes and calibration stand in model.json beside them (docs/export.md). Each model is run on real
    images before it is put in place; one that differs from the run is not kept.
    """

    run: Positional[str]
    """The run folder"""
    format: Literal["both", "torch", "onnx"] = "both"
    """Which of the two; ONNX needs pip install 'longtail[onnx]'"""
    out: Unset[str] = None
    """Folder of the results (default: export in the run folder)"""
    images: Unset[str] = None
    """A folder of images, or one list or file, to check on (default: test images of the run's data set)"""
    opset: int = 20
    """Version of ONNX's operators"""
    data_root: Unset[str] = None
    """Folder of the data sets (default: LONGTAIL_DATA, else ./.data)"""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print the content of model.json on stdout"""


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments = parse(Export, "export", words)
    from longtail.export import FORMATS, export
    from longtail.run import load

    loaded = load(arguments.run)
    formats = FORMATS if arguments.format == "both" else (arguments.format,)
    folder = Path(arguments.out) if arguments.out is not None else loaded.path / "export"
    document = export(loaded, _real_images(loaded, arguments), folder, formats=formats, opset=arguments.opset)
    if arguments.json:
        say_json({**document, "path": str(folder)})
        return 0
    for name, facts in document["files"].items():
        say(str(folder / name))
        note(f"{name}: equal to the run on {document['checked_on_images']} images to {facts['largest_difference']:.1g}")
    say(str(folder / "model.json"))
    return 0


def _real_images(loaded: Run, arguments: Export) -> Tensor:
    """Return images to check on: those that were named, else test images from all over the run's data set."""
    import torch

    if arguments.images is not None:
        return _from_files(loaded, arguments.images)
    from longtail.report.measure import data_of

    try:
        images = data_of(loaded, arguments.data_root).test.images
    except LongtailError as error:
        raise LongtailError(
            f"an export is checked on real images, and the run's data set cannot be loaded: {error.message}",
            fix=f"longtail export {shlex.quote(arguments.run)} --images FOLDER",
        ) from error
    if tuple(images.shape[1:]) != tuple(loaded.task.image_shape):
        raise LongtailError(
            f"the data set has images {tuple(images.shape[1:])} now, the run was trained on {loaded.task.image_shape}",
            fix="name images to check on with --images FOLDER",
        )
    chosen = torch.linspace(0, len(images) - 1, min(_CHECKED, len(images))).long()
    return images[chosen]


def _from_files(loaded: Run, path: str) -> Tensor:
    from longtail.predict import read_images

    images, problems = read_images(loaded.task, [path], most=_CHECKED)
    for problem in problems:
        note(f"skipped: {problem}")
    if len(images) < 2:
        raise UsageError(f"--images {path}: {len(images)} image(s) can be read; 2 or more are needed to check on")
    return images
