"""What methods cost, as their cards tell."""

from __future__ import annotations

import pytest

from longtail import methods
from longtail.benchmark import cards


def test_every_card_tells_a_cost_that_can_be_counted_with():
    names = [*methods.names(), *(f"ce+{modifier}" for modifier in methods.modifiers())]
    assert all(1.0 <= cards.factor(name) <= 6.0 for name in names)
    told = ("1x", "about 3x: so it is", "3x to 4x, 1x at the test", "2x (rotation)")
    assert [cards._factor(text) for text in told] == [1.0, 3.0, 4.0, 2.0]
    assert cards._factor("1x plus 3 %; nothing at test time") == 1.03
    assert cards._factor("1x plus a few per cent") == 1.05
    for text in ("cheap", "1.5 times", "2xy", ""):
        with pytest.raises(ValueError, match="cost is"):
            cards._factor(text)


@pytest.mark.parametrize(
    ("name", "told"), [("ce", "1x"), ("crt", "1x plus a few per cent"), ("ride+h2t", "+h2t: 1x plus 3 %")]
)
def test_cost_of_the_cards(name, told):
    assert cards.cost(name).endswith(told)
