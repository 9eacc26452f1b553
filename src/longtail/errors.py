"""The errors that a user sees: what was wrong, where, the value seen, the rule, and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping


class LongtailError(Exception):
    """Something went wrong while working; the command line prints it and exits with status 1.

    Args:
        message: What was wrong, where, the value seen and the rule; one line.
        fix: What to do about it; one line, may be empty.
    """

    exit_status = 1

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  {self.fix}" if self.fix else self.message

    @property
    def line(self) -> str:
        """Message and fix in one line, for tables."""
        return f"{self.message}; {self.fix}" if self.fix else self.message


class UsageError(LongtailError):
    """The command or call was wrong (an unknown name, a value out of range); exit status 2."""

    exit_status = 2


def unknown_name(kind: str, name: str, known: Iterable[str], titles: Mapping[str, str] | None = None) -> UsageError:
    """Build the error for a name that does not exist, with the nearest names that do.

    Args:
        kind: What the name should have been, for example ``"method"``.
        name: The name as given.
        known: All valid names.
        titles: What else they are called, by name: ``{"bsce": "Balanced softmax"}``.
    """
    names = sorted(set(known))
    spelled = {_bare(title): each for each, title in (titles or {}).items()} | {_bare(each): each for each in names}
    matches = difflib.get_close_matches(_bare(name), spelled, n=3, cutoff=0.5)
    close = list(dict.fromkeys(spelled[match] for match in matches))
    known_names = f"known: {', '.join(names)}" if names else f"there are no {kind}s here"
    fix = f"did you mean {', '.join(close)}?" if close else known_names
    return UsageError(f"unknown {kind} {name!r}", fix=fix)


def _bare(name: str) -> str:
    """Return a name without case, spaces and the dashes of flags, which make all of them alike."""
    return re.sub(r"[\W_]", "", name).casefold()
