"""How frequent the classes are where a model is used: said by a word, a mapping, numbers, or a file of a person's."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from longtail.errors import LongtailError, UsageError, unknown_name

Floats = NDArray[np.float64]
Prior = ArrayLike | Mapping[str, float] | os.PathLike[str]
"""What `as_prior` takes; words and paths are among the first."""


def read_prior(path: Path, class_names: Sequence[str]) -> Floats:
    """Read how frequent the classes are where a model is used, (C,), summing to 1.

    Args:
        path: ``.json``: an object of class name to number; else CSV, ``class,probability`` with or without such a
            header. Probabilities, percentages or counts: only their ratios matter.
        class_names: Names of all classes; each must be in the file, with 0 where it does not occur.

    Raises:
        UsageError: The file does not say one number for each class.
        LongtailError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LongtailError(f"the prior {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    pairs = _json_pairs(path, text) if path.suffix.lower() == ".json" else _csv_pairs(path, text)
    return _shares(pairs, str(path), class_names)


def as_prior(prior: Prior, class_counts: Sequence[int], class_names: Sequence[str]) -> Floats:
    """Return how frequent the classes are where a model is used, (C,), in any unit.

    Args:
        prior: ``"balanced"``: all alike; ``"train"``: as in training; else the path of a file, see `read_prior`; a
            mapping of class name to number, with all classes; or numbers, (C,), which are taken as they are.
        class_counts: Training images of each class, (C,).
        class_names: Names of the classes.

    Raises:
        UsageError: A mapping or a file does not say one number of at least 0 for each class.
        LongtailError: The file cannot be read.
    """
    if isinstance(prior, Mapping):
        return _shares(prior.items(), "the prior", class_names)
    if isinstance(prior, str | os.PathLike):
        if prior not in ("balanced", "train"):
            return read_prior(Path(prior), class_names)
        prior = np.ones(len(class_counts)) if prior == "balanced" else class_counts
    return np.asarray(prior, dtype=np.float64)


def _shares(pairs: Iterable[tuple[str, Any]], where: str, class_names: Sequence[str]) -> Floats:
    values: dict[str, float] = {}
    for name, value in pairs:
        if name not in class_names:
            raise unknown_name(f"class in {where}:", name, class_names)
        if name in values:
            raise UsageError(f"{where} has class {name!r} twice")
        values[name] = _number(where, name, value)
    missing = [name for name in class_names if name not in values]
    if missing:
        raise UsageError(
            f"{where} has no number for {len(missing)} of {len(class_names)} classes, such as {missing[0]!r}",
            fix="give 0 for classes that do not occur",
        )
    prior = np.array([values[name] for name in class_names])
    if prior.sum() <= 0:
        raise UsageError(f"{where} says 0 for every class; one must occur")
    return np.asarray(prior / prior.sum(), dtype=np.float64)


def _json_pairs(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)  # a list, so that doubles are seen
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not (isinstance(pairs, list) and all(isinstance(pair, tuple) for pair in pairs)):
        raise UsageError(f'{path} holds no object such as {{"cat": 0.9, "dog": 0.1}}')
    return pairs


def _csv_pairs(path: Path, text: str) -> list[tuple[str, str]]:
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise UsageError(f"{path} has a line of {len(wrong)} columns, {','.join(wrong)!r}; it needs class,probability")
    if rows and [cell.strip().lower() for cell in rows[0]] == ["class", "probability"]:
        rows = rows[1:]
    return [(name, value) for name, value in rows]


def _number(where: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not (np.isfinite(number) and number >= 0):
        raise UsageError(f"{where} says {value!r} for class {name!r}; it must be a number of at least 0")
    return number
