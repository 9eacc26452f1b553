"""What is said while images are read from files: a bar while it takes long, then what was decided. Imports no torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from longtail.cli.output import is_main, note

if TYPE_CHECKING:
    from longtail.data import LongTailData

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def telling(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that hears of reading and decoding: a bar on a terminal, lines now and then elsewhere."""
    if quiet or not is_main():
        yield lambda what, done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            tasks: dict[str, TaskID] = {}

            def draw(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(f"{what} images")
                progress.update(tasks[what], completed=done, total=total)

            yield draw
    else:
        yield _Lines()


class _Lines:
    """Says a line when a step takes longer than a few seconds."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            note(f"{what} images: {done:,} of {total:,}")


def say_origin(data: LongTailData) -> None:
    """Say what was decided about images from files, and how many had problems."""
    from longtail.data.problems import alike, summary

    origin = data.origin
    if origin is None:
        return
    note(
        f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images of {data.num_classes} classes "
        f"at {origin.image_size}x{origin.image_size}, imbalance {data.imbalance:.3g}"
    )
    for line in origin.notes:
        note(line)
    if doubt := alike(data.class_names):
        note(doubt)
    if origin.problems:
        note(f"problems: {summary(origin.problems)}; `longtail inspect {origin.path}` names them")
