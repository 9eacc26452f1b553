"""From words to a verb's dataclass: tyro's parsing, and this tool's manner of telling errors."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar, get_type_hints

import tyro

from longtail.errors import UsageError, unknown_name

T = TypeVar("T")

_POSITIONAL = tyro.conf.Positional[str].__metadata__[0]  # type: ignore[attr-defined]
_CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName)


def parse(kind: type[T], verb: str, words: Sequence[str]) -> T:
    """Parse the words of a verb that knows all its flags.

    Args:
        kind: Frozen dataclass of the verb's arguments.
        verb: Its name.
        words: What follows the verb.

    Raises:
        UsageError: The words do not fit.
        SystemExit: Help was asked for and printed.
    """
    arguments, options, _ = parse_open(kind, verb, words)
    for name in options:
        raise unknown_name("option", f"--{name}", flags(kind))
    return arguments


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
    known = _flags(kind)
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
        takes_value = known.get(flag, not equals and bool(rest) and not rest[0].startswith("--"))
        if takes_value and not equals and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.pop(0)
        if flag in known:
            if equals and not known[flag]:
                raise UsageError(f"--{flag} takes no value, and got {value!r}")
            own.append(f"--{flag}{equals}{value}")
            given.add(flag.replace("-", "_"))
        else:
            options[name] = value if equals else "true"
    return _typed(kind, verb, own), options, given


def flags(kind: type[Any]) -> list[str]:
    """Return the flags of a verb's dataclass, as typed."""
    return [f"--{name}" for name in _flags(kind)]


def _flags(kind: type[Any]) -> dict[str, bool]:
    """Return the flags of a dataclass, and whether each takes a value."""
    plain, marked = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    markers = {name: getattr(hint, "__metadata__", ()) for name, hint in marked.items()}
    return {name.replace("_", "-"): plain[name] is not bool for name in plain if _POSITIONAL not in markers[name]}


def _typed(kind: type[T], verb: str, words: Sequence[str]) -> T:
    """Let tyro make the dataclass; its boxed errors become one line."""
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr):
            return tyro.cli(kind, prog=f"longtail {verb}", args=list(words), config=_CONFIG)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_plain(stderr.getvalue()), fix=f"see longtail {verb} --help") from None


def _plain(text: str) -> str:
    """Reduce tyro's box, drawn in Unicode or ASCII, to its first sentence."""
    lines = [inside for line in text.splitlines() if (inside := line.strip(" │"))]
    kept: list[str] = []
    for line in lines[1:]:  # the first is the title
        if re.match("[─╰-]{3}", line) or line.endswith(("errors:", "helptext:")):
            if kept:
                break
            continue
        kept.append(line)
    sentence = " ".join(kept) or "the arguments cannot be read"
    if missing := re.match(r"missing from [^:]*: (\S+)", sentence, re.IGNORECASE):  # with the help text behind it
        return f"{missing[1]} is missing"
    return sentence[0].lower() + sentence[1:].rstrip(".")
