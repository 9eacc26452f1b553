"""What the command line prints: tables and JSON on stdout, everything else on stderr, one process only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from longtail.errors import LongtailError, UsageError


def is_main() -> bool:
    """Return whether this process speaks: under torchrun, only the first one does."""
    return os.environ.get("RANK", "0") in ("", "0")


def say(line: str = "") -> None:
    """Print a line of the result."""
    if is_main():
        print(line)


def note(line: str) -> None:
    """Print a line about the work."""
    if is_main():
        print(line, file=sys.stderr, flush=True)


def say_json(document: Any) -> None:
    """Print the result for machines."""
    say(json.dumps(document, indent=1, allow_nan=False))


def say_table(table: Table) -> None:
    """Print a table; where stdout is not a terminal, as wide as it needs to be."""
    if not is_main():
        return
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def percent(value: float | None) -> str:
    """Return a percentage for people: one digit, n/a where there is none."""
    return "n/a" if value is None else f"{value:.1f}"


def of_classes(group: Sequence[int], accuracies: Sequence[float | None]) -> str:
    """Return how many classes a group has and, where some have no test images, how many its accuracy speaks of."""
    size, tested = len(group), sum(accuracies[k] is not None for k in group)
    return (f"{tested} of " if tested < size else "") + f"{size} class" + ("" if size == 1 else "es")


def fail(error: BaseException, *, as_json: bool) -> int:
    """Tell an error in one or two lines, or as one JSON object on stdout, and return the exit status."""
    if isinstance(error, LongtailError):
        message, fix, status = error.message, error.fix, error.exit_status
    elif isinstance(error, ValueError):  # a library function refused an argument, and says which
        message, fix, status = str(error), "", 1
    else:
        message, status = f"{type(error).__name__}: {error}", 1
        fix = "this should not happen; run again with --debug for the traceback"
    if as_json:
        say_json({"error": message, "fix": fix, "status": status})
        return status
    if is_main() or not isinstance(error, UsageError):  # what is wrong use in one process is so in all
        print(f"longtail: {message}" + (f"\n  {fix}" if fix else ""), file=sys.stderr, flush=True)
    return status
