from __future__ import annotations

from typing import Literal

import pytest

from longtail import methods
from longtail.errors import UsageError
from longtail.methods.options import convert


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UsageError, match=r"did you mean .*ldam"):
        methods.parse("ldma")
    with pytest.raises(UsageError, match=r"did you mean .*drw"):
        methods.parse("ldam+drv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("drw", "is a modifier"),
        ("ce+ldam", "is a method, not a modifier"),
        ("ce+drw+drw", "given twice"),
        ("", "unknown"),
    ],
)
def test_malformed_names_say_why(name, message):
    with pytest.raises(UsageError, match=message):
        methods.parse(name)


def test_options_are_read_from_signatures_with_their_docs():
    options = methods.options("ldam+drw")
    assert options["ldam.max_m"].default == 0.5
    assert options["ldam.s"].default == 30.0
    assert options["drw.beta"].default == 0.9999
    assert all(option.doc for option in options.values())


@pytest.mark.parametrize("name", [*methods.names(), *(f"ce+{m}" for m in methods.modifiers())])
def test_every_option_and_card_is_documented(name):
    bare = [option for option, about in methods.options(name).items() if not about.doc]
    assert not bare, f"the docstring of {name} has no line in its Args for {bare}; that line is the option's help"
    for part in methods.parse(name):
        card = methods.card(part)
        assert card.title
        assert card.idea
        assert card.use


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        ("0.5", float, 0.5),
        ("3", int, 3),
        ("true", bool, True),
        ("no", bool, False),
        ("none", float | None, None),
        ("2", int | None, 2),
        ("1,2", tuple[int, ...], (1, 2)),
        ([1, 2], tuple[int, ...], (1, 2)),
        (1, float, 1.0),
        ("none", Literal["some", "none"] | None, "none"),
    ],
)
def test_values_are_converted_to_their_type(value, kind, result):
    assert convert("x", value, kind) == result


@pytest.mark.parametrize(("value", "kind"), [("x", float), ("1.5", int), ("maybe", bool), (1.5, int), (3, bool)])
def test_values_of_another_type_are_refused(value, kind):
    with pytest.raises(UsageError, match="must be of type"):
        convert("x", value, kind)
