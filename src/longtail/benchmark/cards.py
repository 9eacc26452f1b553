"""What a method's training costs beside plain cross-entropy, as its card tells."""

from __future__ import annotations

import math
import re

from longtail import methods

_TOLD = re.compile(r"(?:about )?([\d.]+)x(?: to ([\d.]+)x)?(?: plus (?:([\d.]+) %|a few per cent))?(?=[ ,;:(]|$)")
_A_FEW_PER_CENT = 5.0


def cost(name: str) -> str:
    """Return the cost of ``METHOD+MODIFIER+...`` that the cards of its parts tell, without their explanations."""
    method, *mods = methods.parse(name)
    extra = [f"+{mod}: {told}" for mod in mods if (told := _short(methods.card(mod).cost)) != "1x"]
    return ", ".join([_short(methods.card(method).cost), *extra])


def _short(text: str) -> str:
    for sign in ",;:":
        text = text.partition(sign)[0]
    return text.strip()


def factor(name: str) -> float:
    """Return how many times as long as cross-entropy ``METHOD+MODIFIER+...`` trains, as the cards of its parts tell.

    Of a range it is the upper end.

    Raises:
        ValueError: A card tells its cost in other words.
    """
    return math.prod(_factor(methods.card(part).cost) for part in methods.parse(name))


def _factor(cost: str) -> float:
    told = _TOLD.match(cost)
    if told is None:
        raise ValueError(f"a card's cost is {cost!r}; it must begin as 1x, about 2x, 3x to 4x or 1x plus 3 % do")
    low, high, more = told.groups()
    per_cent = float(more) if more else _A_FEW_PER_CENT if "plus" in told[0] else 0.0
    return float(high or low) * (1 + per_cent / 100)
