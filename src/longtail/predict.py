"""Answers of a trained run on image files: found, decoded and answered in batches; bad files are named and skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.data import Problem, read_image
from longtail.data.decode import Pixels, UnreadableError
from longtail.data.folder import files_below
from longtail.data.scan import Tell, in_parallel, tell_nobody
from longtail.errors import LongtailError, UsageError
from longtail.evaluation import Prior, as_prior
from longtail.folder import written_again
from longtail.request import Task
from longtail.run import Run
from longtail.training.inference import network_logits
from longtail.training.runtime import Runtime, pick_device

Floats = NDArray[np.float64]

Said = tuple[list[Path], NDArray[np.float32]]
"""Paths of a batch of images, and their logits (B, C)."""

Images = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Files and folders, or a single one."""

_BATCH = 256


@dataclass(frozen=True)
class Answer:
    """What a run says of one file.

    Attributes:
        path: The file.
        classes: Names of the likeliest classes, the likeliest first.
        confidences: Their probabilities.
    """

    path: str
    classes: tuple[str, ...]
    confidences: tuple[float, ...]


def predict_files(
    run: Run,
    images: Images,
    *,
    top_k: int = 1,
    prior: Prior | None = None,
    match: bool = False,
    device: str = "auto",
    tell: Tell | None = None,
) -> tuple[list[Answer], list[Problem]]:
    """Answer image files.

    Args:
        run: A finished run.
        images: Files and folders; folders are searched to any depth, in sorted order.
        top_k: Classes in each answer, cut to the number of classes.
        prior: How frequent the classes are where the images come from, as in `Run.predict_proba`; None: as the model
            has it.
        match: Make the answers to all images together as frequent as the prior, see `Posterior.matched`. Their logits
            are in memory together.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        tell: Hears of progress.

    Returns:
        One answer for each file that can be read, in order, and what was wrong with the others.

    Raises:
        UsageError: ``top_k`` is below 1, there is no prior to match, the prior does not fit, or the run was not
            trained on square images of one or three channels.
        LongtailError: The run is not finished or damaged, or a prior is given and there is nothing to fit it to.
    """
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}; it must be at least 1")
    if match and prior is None:
        raise UsageError("match needs a prior that the answers are to match", fix="--prior FILE, balanced or train")
    posterior = run.posterior
    if prior is not None and not posterior.held_out:
        raise LongtailError(
            f"{run.path} has no test_logits.npz, from which one would know which prior the model has already",
            fix=f"leave --prior out; else {written_again(run.path)}",
        )
    problems: list[Problem] = []
    paths = find_files(images, problems)
    said = _said(run, _readable(paths, run.task, problems, tell or tell_nobody), pick_device(device))
    answers: list[Answer] = []
    shares = None if prior is None else as_prior(prior, run.task.class_counts, run.task.class_names)
    wanted = shares if match else None
    for names, logits in said if wanted is None else _together(said):
        found = posterior.probabilities(logits, shares) if wanted is None else posterior.matched(logits, wanted)
        answers += [_answer(path, row, run.task.class_names, top_k) for path, row in zip(names, found, strict=True)]
    return answers, problems


def _said(run: Run, decoded: Iterator[tuple[Path, Pixels]], device: torch.device) -> Iterator[Said]:
    """Yield what the run says of images, batch by batch."""
    teacher, plain = run.teacher().to(device), run.task.plain_transforms()
    runtime = Runtime(str(device), threads=torch.get_num_threads())
    while batch := list(islice(decoded, _BATCH)):
        pixels = torch.from_numpy(np.stack([image for _, image in batch]))
        yield [path for path, _ in batch], network_logits(teacher, pixels, plain, runtime).cpu().numpy()


def _together(said: Iterable[Said]) -> list[Said]:
    """Return all batches as one; none where there is none."""
    batches = list(said)
    if not batches:
        return []
    return [([path for paths, _ in batches for path in paths], np.concatenate([logits for _, logits in batches]))]


def _answer(path: Path, probabilities: Floats, names: Sequence[str], top_k: int) -> Answer:
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return Answer(shown(path), tuple(names[k] for k in order), tuple(float(probabilities[k]) for k in order))


def find_files(images: Images, problems: list[Problem]) -> list[Path]:
    """Return the files that were named and those in folders that were named, each once.

    Args:
        images: Files and folders.
        problems: Where folders that cannot be read are added.
    """
    found: dict[Path, None] = {}
    for path in map(Path, [images] if isinstance(images, str | os.PathLike) else images):
        if path.is_dir():
            below: list[Problem] = []
            found |= dict.fromkeys(files_below(path, below))
            problems += [replace(problem, path=shown(path / problem.path)) for problem in below]
        else:
            found[path] = None
    return list(found)


def shown(path: Path) -> str:
    """Return a path that can be written as UTF-8, whatever bytes the file system holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_for(task: Task, path: Path) -> Pixels:
    """Read an image file as the run behind a task expects it: uint8, (channels, side, side).

    Raises:
        UnreadableError: The file gives no pixels.
        UsageError: The run was not trained on square images of one or three channels.
    """
    channels, height, width = task.image_shape
    if channels not in (1, 3) or height != width:
        raise UsageError(
            f"the run was trained on images {task.image_shape}; files can be read as squares of 1 or 3 channels",
            fix="give arrays to Run.predict instead",
        )
    pixels = read_image(path, height)
    return pixels if channels == 3 else grey(pixels)


def grey(pixels: Pixels) -> Pixels:
    """Return the luma (ITU-R 601) of RGB pixels (3, H, W) as (1, H, W), rounded as Pillow does."""
    red, green, blue = pixels.astype(np.uint32)
    luma: Pixels = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)[None]
    return luma


def read_images(task: Task, images: Images, most: int | None = None) -> tuple[Tensor, list[Problem]]:
    """Read image files as the run behind a task expects them.

    Args:
        task: The run's.
        images: Files and folders.
        most: Stop after so many; None: read all.

    Returns:
        uint8 (N, channels, side, side), and what was wrong with files that cannot be read.

    Raises:
        UsageError: The run was not trained on square images of one or three channels.
    """
    problems: list[Problem] = []
    paths = find_files(images, problems)
    found = [pixels for _, pixels in islice(_readable(paths, task, problems, tell_nobody), most)]
    stacked = np.stack(found) if found else np.empty((0, *task.image_shape), dtype=np.uint8)
    return torch.from_numpy(stacked), problems


def _readable(paths: Sequence[Path], task: Task, problems: list[Problem], tell: Tell) -> Iterator[tuple[Path, Pixels]]:
    """Decode files in threads and yield those that give pixels; the others are added to the problems."""
    decoded = in_parallel(partial(_read, task), paths, "predicting", tell)
    for path, pixels in zip(paths, decoded, strict=True):
        if isinstance(pixels, UnreadableError):
            problems.append(Problem(shown(path), pixels.kind, pixels.detail))
        else:
            yield path, pixels


def _read(task: Task, path: Path) -> Pixels | UnreadableError:
    try:
        return read_for(task, path)
    except UnreadableError as error:
        return error
