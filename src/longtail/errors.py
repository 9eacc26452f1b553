"""The errors that a user sees: what was wrong, where, the value seen, the rule, and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that does not exist, with the nearest names that do.

    Args:
        kind: What the name should have been, for example ``"method"``.
        name: The name as given.
        known: All valid names.
    """
    names = sorted(set(known))
    # Without the dashes of flags, which make all of them alike.
    bare = {each.lstrip("-"): each for each in names}
    close = [bare[match] for match in difflib.get_close_matches(name.lstrip("-"), bare, n=3, cutoff=0.5)]
    fix = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} {name!r}", fix=fix)
