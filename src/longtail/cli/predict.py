"""`longtail predict`: classes and confidences for new images."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from tyro.conf import Positional, arg

from longtail.cli.arguments import parse
from longtail.cli.loading import telling
from longtail.cli.output import is_main, note, say, say_json
from longtail.cli.setup import Unset
from longtail.config import read_config
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.data import Problem
    from longtail.predict import Answer
    from longtail.run import Run

_SUFFIXES = (".csv", ".json")


@dataclass(frozen=True)
class Predict:
    """Say what is on new images: a line for each file, with the likeliest classes and how sure that is.

    Files that cannot be read are named and skipped. Confidences are calibrated on the run's test images, which it was
    not trained on (docs/predict.md); they hold where the classes are as frequent as the method takes them to be, or as
    --prior says.
    """

    run: Positional[str]
    """The run folder"""
    images: Positional[tuple[str, ...]]
    """Image files, and folders of them to any depth"""
    top_k: int = 1
    """Number of classes to name, the likeliest first"""
    prior: Unset[str] = None
    """How frequent the classes are there: a file (class,probability as CSV, or JSON), or balanced, or train"""
    match: Annotated[bool, arg(help_behavior_hint="")] = False
    """Make the answers to all images together as frequent as --prior says; for hundreds of images or more"""
    out: Unset[str] = None
    """Write to this .csv or .json file (default: CSV on stdout)"""
    device: str = "auto"
    """cpu, cuda, cuda:N or auto"""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON on stdout"""
    quiet: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show no progress"""


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status: 1 where no file could be read."""
    arguments = parse(Predict, "predict", words)
    _check(arguments)
    read_config(Path(arguments.run))  # that there is no run is found before torch is imported
    from longtail.predict import predict_files
    from longtail.run import load

    loaded = load(arguments.run)
    with telling(quiet=arguments.quiet) as tell:
        answers, problems = predict_files(
            loaded,
            arguments.images,
            top_k=arguments.top_k,
            prior=arguments.prior,
            match=arguments.match,
            device=arguments.device,
            tell=tell,
        )
    if not answers and not problems:
        raise LongtailError(f"there is no file in {', '.join(arguments.images)}", fix="name files, or folders of them")
    for problem in problems:
        note(f"skipped: {problem}")
    if not arguments.quiet:
        _tell_calibration(loaded)
    _write(arguments, loaded, answers, problems)
    return 0 if answers else 1


def _check(arguments: Predict) -> None:
    """Find wrong use before anything is loaded."""
    if not arguments.images:
        raise UsageError("no images are given", fix="longtail predict RUN IMAGES...; files or folders")
    if arguments.top_k < 1:
        raise UsageError(f"--top-k is {arguments.top_k}; it must be at least 1")
    if arguments.match and arguments.prior is None:
        raise UsageError("--match needs --prior, which says what the answers are to match", fix="--prior balanced")
    if arguments.out is not None:
        out = Path(arguments.out)
        if out.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"--out {out}: the name must end with .csv or .json, which says the format")
        if not out.parent.is_dir():
            raise UsageError(f"--out {out}: there is no folder {out.parent}")


def _tell_calibration(loaded: Run) -> None:
    posterior = loaded.posterior
    if posterior.held_out:
        note(f"confidences: temperature {posterior.temperature:.2f}, fitted on {posterior.held_out:,} held-out images")
    else:
        note(f"confidences are not calibrated: {loaded.path} has no test_logits.npz")


def _write(arguments: Predict, loaded: Run, answers: Sequence[Answer], problems: Sequence[Problem]) -> None:
    document = _document(arguments, loaded, answers, problems)
    if arguments.out is not None:
        out = Path(arguments.out)
        try:
            with out.open("w", encoding="utf-8", newline="") as file:
                if out.suffix.lower() == ".json":
                    file.write(json.dumps(document, indent=1) + "\n")
                else:
                    write_csv(answers, file)
        except OSError as error:
            raise LongtailError(f"{out} cannot be written: {error.strerror}", fix="choose another --out") from error
    if arguments.json:
        say_json(document)
    elif arguments.out is not None:
        say(arguments.out)
    elif is_main():
        write_csv(answers, sys.stdout)


def _document(
    arguments: Predict, loaded: Run, answers: Sequence[Answer], problems: Sequence[Problem]
) -> dict[str, Any]:
    """Return everything as plain values for JSON."""
    posterior = loaded.posterior
    return {
        "run": arguments.run,
        "prior": arguments.prior,
        "match": arguments.match,
        "temperature": posterior.temperature,
        "held_out": posterior.held_out,
        "predictions": [asdict(answer) for answer in answers],
        "skipped": [asdict(problem) for problem in problems],
    }


def write_csv(answers: Sequence[Answer], file: TextIO) -> None:
    """Write a line for each answer: path, class and confidence; of the second class on with a number behind."""
    writer = csv.writer(file, lineterminator="\n")
    places = range(1, 1 + max((len(answer.classes) for answer in answers), default=1))
    names = [name if place == 1 else f"{name}_{place}" for place in places for name in ("class", "confidence")]
    writer.writerow(["path", *names])
    for answer in answers:
        pairs = zip(answer.classes, answer.confidences, strict=True)
        writer.writerow([answer.path, *(cell for name, sure in pairs for cell in (name, f"{sure:.4f}"))])
