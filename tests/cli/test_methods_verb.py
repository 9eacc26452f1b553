"""`longtail methods`: the list and the cards."""

from __future__ import annotations

import pytest

from longtail import methods


def test_list_has_every_name(longtail):
    said = longtail("methods")
    assert said.status == 0
    words = said.out.split()
    assert set(methods.names()) <= set(words)
    assert {f"+{name}" for name in methods.modifiers()} <= set(words)
    listed = longtail("methods", "--json").json
    assert [entry["name"] for entry in listed["methods"]] == methods.names()
    assert [entry["name"] for entry in listed["modifiers"]] == methods.modifiers()
    assert all(entry["title"] and entry["paper"] for group in listed.values() for entry in group)


@pytest.mark.parametrize("name", [*methods.names(), *methods.modifiers(), "ldam+drw", "ce+mixup+drw"])
def test_every_card(longtail, name):
    said = longtail("methods", name)
    assert said.status == 0
    assert all(len(line) <= 200 for line in said.out.splitlines())
    card = longtail("methods", name, "--json").json
    assert {part["name"] for part in card["parts"]} == set(name.split("+"))
    assert card["refused"] is None
    for part in card["parts"]:
        assert part["title"] in said.out
        assert part["idea"].split()[0] in said.out
        for option in part["options"]:
            assert f"--{option['name'].replace('_', '-')}" in said.out
            assert option["doc"], f"the docstring of {part['name']} has no line in its Args for {option['name']}"


def test_card_shows_published_numbers(longtail):
    card = longtail("methods", "ldam+drw", "--json").json
    values = {(row["dataset"], row["imbalance"], row["value"]) for row in card["published"]}
    assert ("cifar100", 100.0, 42.04) in values
    assert "42.04" in longtail("methods", "ldam+drw").out
    assert longtail("methods", "ce+mixup+drw", "--json").json["name"] == "ce+drw+mixup"
    assert "no published numbers" in longtail("methods", "ce+mixup+drw").out
    assert "shown with ce+cam, ce+mixup+cam" in longtail("methods", "cam").out


def test_unknown_name(longtail):
    said = longtail("methods", "ldma")
    assert said.status == 2
    assert "did you mean ldam" in said.err
    assert longtail("methods", "ldam+drx", "--json").json["fix"].startswith("did you mean dr")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bsce+drs", "bsce+drs: +drs would balance twice: this method's loss balances already; use ce+drs"),
        ("ce+mixup+cutmix", "ce+mixup+cutmix: +cutmix does not fit a recipe that mixes images already"),
    ],
)
def test_a_combination_that_train_refuses_says_so(longtail, name, told):
    said = longtail("methods", name)
    assert said.status == 0
    assert said.out.startswith(f"refused: {told}")
    assert longtail("methods", name, "--json").json["refused"].startswith(told)
