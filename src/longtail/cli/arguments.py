"""From words to a verb's dataclass: tyro's parsing, and this tool's manner of telling errors."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from typing import Any, TypeVar

import tyro

from longtail.errors import UsageError

T = TypeVar("T")

_CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName)


def parse(kind: type[T], verb: str, words: Sequence[str]) -> T:
    """Parse the words of a verb.

    Args:
        kind: Frozen dataclass of the verb's arguments.
        verb: Its name.
        words: What follows the verb.

    Raises:
        UsageError: The words do not fit.
        SystemExit: Help was asked for and printed.
    """
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr):
            return tyro.cli(kind, prog=f"longtail {verb}", args=list(words), config=_CONFIG)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_plain(stderr.getvalue()), fix=f"see longtail {verb} --help") from None


def parse_open(kind: type[T], verb: str, words: Sequence[str]) -> tuple[T, dict[str, str], set[str]]:
    """Parse the words of a verb that takes options by name beside its own flags.

    The words are sorted before tyro sees them: it cannot know that the word after a foreign ``--name`` belongs to it.

    Args:
        kind: Frozen dataclass of the verb's arguments.
        verb: Its name.
        words: What follows the verb.

    Returns:
        The arguments; the options as ``--name value`` or ``--name=value`` gave them (``true`` without a value); and the
        names of the dataclass's fields that were given.

    Raises:
        UsageError: The words do not fit.
        SystemExit: Help was asked for and printed.
    """
    flags = _flags(kind)
    own: list[str] = []
    options: dict[str, str] = {}
    given: set[str] = set()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word[2:].partition("=")
        flag = name.replace("_", "-")
        if not word.startswith("--") or flag == "help" or not name:
            own.append(word)
            continue
        takes_value = flags.get(flag, not equals and bool(rest) and not rest[0].startswith("--"))
        if takes_value and not equals and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.pop(0)
        if flag in flags:
            own.append(f"--{flag}{equals}{value}")
            given.add(flag.replace("-", "_"))
        else:
            options[name] = value if equals else "true"
    return parse(kind, verb, own), options, given


def _flags(kind: type[Any]) -> dict[str, bool]:
    """Return the flags of a dataclass, and whether each takes a value."""
    return {
        f.name.replace("_", "-"): f.type not in (bool, "bool")
        for f in fields(kind)
        if "Positional" not in str(f.type)
    }


def _plain(text: str) -> str:
    """Reduce tyro's box to its first sentence."""
    lines = [re.sub(r"[│╭╮╰╯|]|^[─\s]+|[─\s]+$", "", line).strip() for line in text.splitlines()]
    kept: list[str] = []
    for line in lines:
        if not line or "─" in line or line.endswith("errors:") or line.endswith("helptext:"):
            if kept:
                break
            continue
        kept.append(line)
    return " ".join(kept) or "the arguments cannot be read"
