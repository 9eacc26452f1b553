"""HTML made of function calls: whatever is not made by `tag` is text, and text is always escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias


class Markup(str):
    """A piece of finished HTML; made by `tag` and `join` only."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[str | int] | None"

_VOID = frozenset({"img", "meta", "input", "circle", "line", "rect", "polyline", "col", "br"})


def tag(element: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Args:
        element: Its name.
        children: Text, which is escaped; `Markup`, which is not; iterables of both; None is left out.
        attributes: Underscores stand for hyphens, and one at the end is dropped (``class_``). True is an attribute
            without a value, False and None leave it out.
    """
    words = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{html.escape(_number(value))}"')
    opening = Markup(f"<{' '.join(words)}>")
    if element in _VOID:
        # Within SVG an element must be closed; in HTML the slash does no harm.
        return Markup(f"{opening[:-1]}/>")
    return Markup(f"{opening}{join(*children)}</{element}>")


def join(*children: Child) -> Markup:
    """Return pieces one after the other, text escaped."""
    return Markup("".join(_pieces(children)))


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str | int):
            yield html.escape(str(child))
        else:
            yield from _pieces(child)


def _number(value: str | float) -> str:
    """Return an attribute's value; coordinates keep two decimals, which is a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
