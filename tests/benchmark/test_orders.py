"""Orders that published tables report, beside ours."""

from __future__ import annotations

import pytest

from longtail import methods
from longtail.benchmark import orders
from longtail.benchmark.table import aggregate


def rows(**top1):
    about = {"dataset": "cifar100", "imbalance": 100.0, "protocol": "quick", "epochs": 24, "class_counts": None}
    scores = {"many": 1.0, "medium": 1.0, "few": 1.0}
    return aggregate({"method": name, "seed": 0, "top1": value, **scores, **about} for name, value in top1.items()).rows


@pytest.mark.parametrize("order", orders.ORDERS, ids=str)
def test_every_order_stands_in_its_table_and_can_be_run(order):
    assert orders.published_gain(order, 100.0) > 0
    for name in map(orders.bare, (order.above, order.below)):
        assert methods.canonical(name) == name


def test_gains_are_those_of_the_table_and_of_the_rows():
    lines = orders.compare(rows(**{"crt+h2t": 40.0, "crt+h2t (h2t.p=0.0)": 41.5, "dive": 36.0, "bsce": 34.0}), 100.0)
    assert lines[2:] == [
        "| `dive` above `bsce` | deck-001-cifar100 | +3.0 | +2.0 | yes |",
        "| `crt+h2t` above `crt+h2t (p=0.0)` | deck-003-cifar100 | +2.0 | -1.5 | no |",
    ]


def test_orders_of_another_data_set_are_named_as_such():
    (line,) = orders.compare(rows(**{"ssd": 34.0, "ssd (ssd.row=III-hard)": 33.0}), 100.0)[2:]
    assert line == ("| `ssd` above `ssd (row=III-hard)` | deck-001-ssd-ablation (imagenet-lt) | +4.1 | +1.0 | yes |")


def test_a_method_that_did_not_learn_confirms_no_order():
    (line,) = orders.compare(rows(**{"da-meta": 33.4, "l2rw": 1.9, "l2rw (lr=0.01)": 19.1}), 100.0)[2:]
    assert line == "| `da-meta` above `l2rw` | deck-002-cifar100 | +4.5 | +31.5 | not comparable: one did not learn |"


def test_variants_and_other_imbalances_are_not_compared():
    assert orders.compare(rows(**{"dive (dive.alpha=0.1)": 40.0, "bsce (decay=0.1,0.01)": 41.5}), 100.0) == []
    assert orders.compare(rows(**{"crt+h2t": 40.0, "crt+h2t (h2t.p=0.0)": 41.5}), 3.0) == []


def test_experts_stand_beside_their_answer_under_the_name_of_their_row():
    metrics = {"method": "ride", "seed": 0, "top1": 40.0}
    with_experts, without = ({"metrics": metrics, "experts": own} for own in ([36.0, 38.5], []))
    lines = orders.experts([("ride (ride.gamma=1.0)", with_experts), ("ce", without)])
    assert lines[2:] == ["| `ride (ride.gamma=1.0)` | 0 | 36.0, 38.5 | 40.0 | +1.5 |"]
