"""`longtail methods`: the list, or the card of one name."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from rich.box import SIMPLE
from rich.table import Table
from tyro.conf import Positional, arg

from longtail.cli.arguments import parse
from longtail.cli.output import say, say_json, say_table
from longtail.cli.setup import Unset
from longtail.errors import UsageError


@dataclass(frozen=True)
class Methods:
    """List the methods and modifiers, or show the card of one.

    NAME may be put together, such as ldam+drw.
    """

    name: Positional[Unset[str]] = None
    """METHOD, MODIFIER or METHOD+MODIFIER+..."""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON on stdout"""


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments = parse(Methods, "methods", words)
    if arguments.name is None:
        _list(as_json=arguments.json)
    else:
        card = describe(arguments.name)
        if arguments.json:
            say_json(card)
        else:
            _show(card)
    return 0


def _list(*, as_json: bool) -> None:
    from longtail import methods

    groups = {"methods": methods.names(), "modifiers": methods.modifiers()}
    if as_json:
        say_json({group: [{"name": n, **asdict(methods.card(n))} for n in names] for group, names in groups.items()})
        return
    for group, names in groups.items():
        plus = "+" if group == "modifiers" else ""
        say(f"{group}:")
        table = Table(box=None, show_header=False, padding=(0, 2))
        for name in names:
            card = methods.card(name)
            table.add_row(plus + name, card.title, card.paper)
        say_table(table)
        say()
    say("longtail methods NAME shows one; modifiers follow a method, as in ldam+drw")


def describe(name: str) -> dict[str, Any]:
    """Return the cards, options and published numbers of a name, as plain values; ``refused``: why it cannot be run.

    Raises:
        UsageError: A part of the name is unknown.
    """
    from longtail import methods
    from longtail.benchmark import published
    from longtail.methods import METHODS, MODIFIERS

    bare = name.removeprefix("+")
    alone = bare in MODIFIERS
    parts = (bare,) if alone else methods.parse(bare)
    functions = {part: {**METHODS, **MODIFIERS}[part].function for part in parts}
    cards = [
        {
            "name": part,
            "kind": "modifier" if part in MODIFIERS else "method",
            **asdict(methods.card(part)),
            "summary": (functions[part].__doc__ or "").partition("\n")[0],
            "options": [
                {"name": option.name, "default": option.default, "doc": option.doc}
                for option in methods.part_options(part).values()
            ],
        }
        for part in parts
    ]
    full = bare if alone else methods.canonical(bare)
    combined = sorted({row.method for row in published.load() if alone and bare in row.method.split("+")[1:]})
    return {
        "name": full,
        "refused": None if alone else _refusal(full),
        "parts": cards,
        "published": [asdict(row) for row in published.find(full)],
        "published_with": combined,
    }


def _refusal(name: str) -> str | None:
    """Return why `train` refuses a combination at its defaults, with the fix; None where it does not."""
    from longtail.request import rehearse

    try:
        rehearse("cifar100", name, dev_per_class=10)  # a development set can be had for the asking
    except UsageError as error:
        return error.line
    return None


def _show(card: dict[str, Any]) -> None:
    if card["refused"]:
        say(f"refused: {card['refused']}")
        say()
    for part in card["parts"]:
        plus = "+" if part["kind"] == "modifier" else ""
        arxiv = f", arXiv {part['arxiv']}" if part["arxiv"] else ""
        say(f"{plus}{part['name']}: {part['title']}")
        for label, text in (
            ("paper", part["paper"] + arxiv),
            ("idea", part["idea"]),
            ("does", part["summary"]),
            ("use", part["use"]),
            ("cost", part["cost"]),
        ):
            say(textwrap.fill(text, 110, initial_indent=f"  {label:<7}", subsequent_indent=" " * 9))
        for option in part["options"]:
            text = f"{option['doc']} (default: {option['default']})"
            flag = f"  --{option['name'].replace('_', '-')}  "
            say(textwrap.fill(text, 110, initial_indent=flag, subsequent_indent=" " * 9))
        say()
    _show_published(card)


def _show_published(card: dict[str, Any]) -> None:
    if not card["published"]:
        if card["published_with"]:
            say(f"published numbers are shown with {', '.join(card['published_with'])}")
        else:
            say(f"no published numbers for {card['name']}")
        return
    table = Table(box=SIMPLE, title=f"published top-1 accuracy of {card['name']}", title_justify="left")
    table.add_column("data set")
    table.add_column("imbalance", justify="right")
    table.add_column("top-1", justify="right")
    table.add_column("source")
    for row in card["published"]:
        note = f" ({row['note']})" if row["note"] else ""
        imbalance = "" if row["imbalance"] is None else f"{row['imbalance']:g}"
        table.add_row(row["dataset"], imbalance, f"{row['value']:.2f}", row["source"] + note)
    say_table(table)
