"""What is wrong with single files of a person's own images, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from longtail.errors import LongtailError

KINDS = {
    "missing": "named in a list, but not there",
    "outside": "beside the class folders, so without a class",
    "not a file": "a pipe, a socket, a device or a loop of links",
    "no access": "reading is not permitted, or failed",
    "empty file": "0 bytes",
    "not an image": "in none of the formats that are read",
    "damaged": "an image that cannot be decoded to its end",
    "too large": "more pixels than are safe to decode",
    "several classes": "annotated as more than one class; left out",
    "no class": "listed without an annotation; left out",
    "listed twice": "the same file again, or with another class; the first line is used",
    "empty class": "a class without a readable training image; left out",
    "no test image": "a class whose accuracy cannot be measured; used",
    "wrong extension": "another format than its name says; used",
    "tiny": "a side below 8 pixels; used",
    "thin": "more than 8 times as long as wide; used",
}
"""Kinds of problems, the gravest first."""

_USED = frozenset({"listed twice", "wrong extension", "tiny", "thin", "no test image"})


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file or a class folder.

    Attributes:
        path: Which one, relative to the data set's folder.
        kind: One of `KINDS`.
        detail: What was seen.
    """

    path: str
    kind: str
    detail: str

    @property
    def used(self) -> bool:
        """Whether the images are used nonetheless."""
        return self.kind in _USED

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.kind} ({self.detail})"


def printable(name: str) -> str:
    """Return a file or class name that fits in one line and can be encoded: odd characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)


def shown_name(name: str) -> str:
    """Return a class name for people: quoted where spaces around it would not be seen."""
    return f"'{name}'" if name != name.strip() else name


def alike(names: Iterable[str]) -> str:
    """Say which class names differ in case or in spaces around them only; empty where none do."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.strip().casefold(), []).append(name)
    doubtful = [group for group in groups.values() if len(group) > 1]
    if not doubtful:
        return ""
    first = doubtful[0]
    in_case = len({name.strip() for name in first}) > 1
    in_spaces = len({name.casefold() for name in first}) > 1
    what = " and ".join(["case"] * in_case + ["outer spaces"] * in_spaces)
    *others, last = (f"'{printable(name)}'" for name in first)
    more = f"; {len(doubtful) - 1} more such" if len(doubtful) > 1 else ""
    return f"{', '.join(others)} and {last} differ in {what} only: one class?{more}"


def summary(problems: Sequence[Problem]) -> str:
    """Return the number of problems by kind, the gravest first: ``2 damaged, 1 tiny``."""
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)


def refuse(problems: Sequence[Problem], source: str) -> None:
    """Raise LongtailError where there are problems, naming the first three."""
    if problems:
        first = "; ".join(str(problem) for problem in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise LongtailError(
            f"{source}: {len(problems)} problems ({summary(problems)}): {first}{more}",
            fix="longtail inspect lists them all; without --strict they are only reported",
        )
