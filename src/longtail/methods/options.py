"""Options of methods and modifiers: read from their signatures, checked and converted by name."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longtail.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Option:
    """One keyword-only argument of a method or modifier.

    Attributes:
        part: Name of the method or modifier.
        name: Name of the argument.
        kind: Its annotation.
        default: Its default.
        doc: Its line in the docstring.
    """

    part: str
    name: str
    kind: Any
    default: Any
    doc: str


def options_of(part: str, function: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of a method or modifier, in the order of its signature."""
    hints = typing.get_type_hints(function)
    docs = _argument_docs(function.__doc__ or "")
    return {
        name: Option(part, name, hints[name], parameter.default, docs.get(name, ""))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _argument_docs(docstring: str) -> dict[str, str]:
    from docstring_parser import parse

    return {p.arg_name: " ".join((p.description or "").split()) for p in parse(docstring).params}


def assign(
    options: Sequence[Mapping[str, Option]], given: Mapping[str, Any], also: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Distribute options given by name over the parts that take them.

    Args:
        options: Options of the method and of each modifier.
        given: Values by ``name``, or by ``part.name`` where several parts have the name. Hyphens count as underscores;
            strings are converted to the option's type.
        also: Names that are options of something else, to suggest where a name is unknown.

    Returns:
        The keyword arguments of each part.

    Raises:
        UsageError: An option is unknown, ambiguous or not of its type.
    """
    arguments: list[dict[str, Any]] = [{} for _ in options]
    for key, value in given.items():
        part, _, bare = key.rpartition(".")
        name = bare.replace("-", "_")
        homes = [k for k, known in enumerate(options) if name in known and part in ("", known[name].part)]
        if not homes:
            raise unknown_name("option", key, [*also, *(name for known in options for name in known)])
        if len(homes) > 1:
            spelled = " or ".join(f"{options[k][name].part}.{name}" for k in homes)
            raise UsageError(f"option {key!r} is ambiguous", fix=f"write {spelled}")
        arguments[homes[0]][name] = convert(key, value, options[homes[0]][name].kind)
    return arguments


def convert(key: str, value: Any, kind: Any) -> Any:
    """Convert a value (a string from the command line, or a Python value) to an annotated type.

    Raises:
        UsageError: The value is not of the type.
    """
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        inner = next(a for a in typing.get_args(kind) if a is not type(None))
        if value is None or (
            isinstance(value, str) and value.lower() == "none" and value not in typing.get_args(inner)
        ):
            return None
        return convert(key, value, inner)
    if origin is typing.Literal:
        if value in typing.get_args(kind):
            return value
        raise UsageError(f"{key} is {value!r}; it must be one of {', '.join(map(str, typing.get_args(kind)))}")
    if origin is tuple:
        items = value.replace(",", " ").split() if isinstance(value, str) else list(value)
        return tuple(convert(key, item, typing.get_args(kind)[0]) for item in items)
    try:
        return _scalar(value, kind)
    except (TypeError, ValueError, KeyError):
        raise UsageError(f"{key} is {value!r}; it must be of type {kind.__name__}") from None


def _scalar(value: Any, kind: Any) -> Any:
    if kind is bool and isinstance(value, str):
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
    if kind is bool and not isinstance(value, bool):
        raise TypeError
    if kind is int and (isinstance(value, bool) or (isinstance(value, float) and value != int(value))):
        raise TypeError
    return kind(value)
