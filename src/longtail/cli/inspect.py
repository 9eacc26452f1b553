"""`longtail inspect`: what a data set is like before anything is trained on it."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table
from tyro.conf import Positional

from longtail.cli.arguments import parse
from longtail.cli.output import note, say, say_json, say_table
from longtail.cli.setup import Reading, Unset, check_data
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longtail.data import LongTailData

_SHOWN = 20
_BAR = 40
_PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class What:
    """The flags that stand first in the help."""

    data: Positional[str] = "digits"
    """digits, cifar10, cifar100, or a folder of class folders, or a CSV file (path,label[,split])"""
    plot: Unset[str] = None
    """Write a picture of the class sizes to this file (.png, .pdf or .svg)"""
    run: Unset[str] = None
    """A run on this data set: labels are judged by its network's features"""


@dataclass(frozen=True)
class Inspect(Reading, What):  # fields of the last base come first
    """Show the long tail of a data set, what is wrong with its files and labels, and what to try first.

    Labels that look wrong are found by comparing thumbnails, which see colour and layout and not objects; with --run
    the features of a trained network are compared instead. Classes of ten images or fewer are not judged.
    """


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments = parse(Inspect, "inspect", words)
    plot = None if arguments.plot is None else _picture(Path(arguments.plot))
    check_data(arguments.data)
    from longtail.report.inspect import inspect

    loaded = arguments.read(arguments.data)
    features = None if arguments.run is None else _features(arguments.run, loaded)
    found = inspect(loaded, features, named=arguments.data)
    if plot is not None:
        _draw(loaded, plot)
    if arguments.json:
        say_json(found)
    else:
        _show(found)
    return 0


def _picture(path: Path) -> Path:
    """Return where the picture goes; found wrong before anything is read."""
    if path.suffix.lower() not in _PICTURES:
        raise UsageError(f"--plot {path}: the name must end with {', '.join(_PICTURES)}, which says the format")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")
    return path


def _features(path: str, data: LongTailData) -> NDArray[np.float32]:
    """Return what a run's network sees in the training and test images, (N, d)."""
    import torch

    from longtail.run import load
    from longtail.training.inference import extract_features
    from longtail.training.runtime import Runtime

    run = load(path)
    if tuple(run.task.class_names) != tuple(data.class_names) or tuple(run.task.image_shape) != data.image_shape:
        raise UsageError(f"{path} was trained on other classes or another image size than {data.name}")
    runtime = Runtime(threads=torch.get_num_threads())
    parts = [
        extract_features(run.network, images.images, run.task.plain_transforms(), runtime)
        for images in (data.train, data.test)
    ]
    seen = torch.cat(parts, dim=-2)
    features: NDArray[np.float32] = (seen if seen.ndim == 2 else seen.movedim(0, 1).flatten(1)).numpy()
    return features


def _draw(data: LongTailData, path: Path) -> None:
    from longtail.report.inspect_plot import class_count_bars

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", message="Glyph ")  # one for each sign, with matplotlib's source line
            class_count_bars(data.class_counts, data.class_names).savefig(path, dpi=150)
    except OSError as error:
        raise LongtailError(
            f"the picture {path} cannot be written: {error.strerror}", fix="choose another --plot"
        ) from error
    if caught:
        note(f"{path}: matplotlib's font lacks signs of some class names; they are drawn as boxes")


def _show(found: dict[str, Any]) -> None:
    _show_profile(found)
    _show_classes(found["classes"])
    _show_files(found)
    _show_duplicates(found["duplicates"])
    _show_suspects(found["suspects"])
    say("what to try, in this order:")
    for number, piece in enumerate(found["advice"], start=1):
        say(textwrap.fill(piece["why"], 110, initial_indent=f"  {number}. ", subsequent_indent="     "))
        if piece["command"]:
            say(f"     {piece['command']}")


def _show_profile(found: dict[str, Any]) -> None:
    size = "x".join(map(str, found["image_shape"][1:]))
    say(
        f"{found['dataset']}: {found['train_images']:,} training and {found['test_images']:,} test images of "
        f"{len(found['classes'])} classes, {size}"
    )
    for line in found["notes"]:
        say(textwrap.fill(line, 110, initial_indent="  ", subsequent_indent="  "))
    imbalance = "not defined, a class is empty" if found["imbalance"] is None else f"{found['imbalance']:.3g}"
    say(f"imbalance factor (largest over smallest class): {imbalance}")
    say(f"effective number of classes (exp of entropy): {found['effective_classes']:.1f} of {len(found['classes'])}")
    share = 100 / max(found["train_images"], 1)
    told = [
        f"{name} {_number(group['classes'])}, {share * group['train']:.0f} % of the images"
        for name, group in found["groups"].items()
    ]
    say(f"shot groups: {'; '.join(told)}")


def _number(classes: int) -> str:
    return f"{classes} class" + ("" if classes == 1 else "es")


def _show_classes(classes: list[dict[str, Any]]) -> None:
    """Show the classes, largest first; of many the ends."""
    from longtail.data.problems import shown_name

    ranked = sorted(classes, key=lambda row: -row["train"])
    largest = ranked[0]["train"]
    table = Table(box=SIMPLE)
    table.add_column("class")
    table.add_column("train", justify="right")
    table.add_column("test", justify="right")
    table.add_column("")
    ends = ranked if len(ranked) <= _SHOWN else [*ranked[: _SHOWN // 2], *ranked[-_SHOWN // 2 :]]
    for k, row in enumerate(ends):
        if len(ends) < len(ranked) and k == _SHOWN // 2:
            table.add_row(f"... {len(ranked) - len(ends)} more", "", "", "")
        bar = "#" * max(round(_BAR * row["train"] / largest), 1 if row["train"] else 0)
        table.add_row(shown_name(row["name"]), str(row["train"]), str(row["test"]), bar)
    say_table(table)


def _show_files(found: dict[str, Any]) -> None:
    files = found["files"]
    if files is None:
        return
    for name in ("formats", "modes"):
        say(f"{name}: {', '.join(f'{key} {count:,}' for key, count in files[name].items())}")
    for name in ("width", "height"):
        span = files[name]
        say(f"{name}: {span['smallest']:,} to {span['largest']:,} pixels, median {span['median']:,.0f}")
    problems = found["problems"]
    say(f"problems: {len(problems) or 'none'}")
    _list(f"{row['kind']}: {row['path']} ({row['detail']}){'' if not row['used'] else ', used'}" for row in problems)


def _show_duplicates(found: dict[str, Any]) -> None:
    for kind, told in (("identical", "identical images"), ("near", "nearly identical images")):
        groups = sorted(found[kind], key=lambda g: (not g["across_splits"], not g["across_classes"]))
        say(f"{told}: {f'{len(groups)} groups' if groups else 'none'}")
        _list(_group(group) for group in groups)


def _group(group: dict[str, Any]) -> str:
    bad = [
        word
        for word, holds in (
            ("LEAK into the test set", group["across_splits"]),
            ("in two classes", group["across_classes"]),
        )
        if holds
    ]
    names = ", ".join(image["name"] for image in group["images"][:4])
    more = f" and {len(group['images']) - 4} more" if len(group["images"]) > 4 else ""
    return f"{names}{more}" + (f": {', '.join(bad)}" if bad else "")


def _show_suspects(found: dict[str, Any]) -> None:
    from longtail.data.problems import shown_name

    if found["accuracy"] is None:
        say("labels that look wrong: not judged, every class has ten images or fewer")
        return
    if not found["judged"]:
        say(
            f"labels that look wrong: not judged, neighbours by {found['by']} name only {found['accuracy']:.0f} % of "
            "the classes rightly" + ("; try --run RUN after a first training" if found["by"] == "thumbnails" else "")
        )
        return
    say(
        f"labels that look wrong: {len(found['images']) or 'none'} of {found['judged']:,} judged (by {found['by']}, "
        f"which name {found['accuracy']:.0f} % rightly; look before you change any)"
    )
    _list(
        f"{row['name']}: {shown_name(row['class'])}, looks like {shown_name(row['looks_like'])}"
        for row in found["images"]
    )


def _list(lines: Iterable[str]) -> None:
    shown = list(lines)
    for line in shown[:_SHOWN]:
        say(f"  {line}")
    if len(shown) > _SHOWN:
        say(f"  ... and {len(shown) - _SHOWN} more; --json lists all")
