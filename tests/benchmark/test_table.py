"""Aggregation over seeds, and what may stand in one table."""

from __future__ import annotations

import csv
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.benchmark.table import aggregate, signed, to_csv, to_markdown, to_plain
from longtail.errors import UsageError


def run(method="ce", seed=0, top1=50.0, **changes):
    values = {
        "method": method, "seed": seed, "top1": top1, "many": top1 + 10, "medium": top1, "few": None,
        "dataset": "digits", "imbalance": 50.0, "protocol": "quick", "epochs": 20, "class_counts": [3, 2, 1],
    }  # fmt: skip
    return {**values, **changes}


def test_mean_std_and_gain():
    table = aggregate([run(seed=0, top1=40), run(seed=1, top1=44), run("bsce", 0, 50), run("bsce", 1, 52)])
    ce, bsce = table.rows
    assert ce.scores["top1"].mean == 42
    assert ce.scores["top1"].std == pytest.approx(statistics.stdev([40, 44]))
    assert ce.scores["top1"].gain is None
    assert bsce.scores["top1"].gain == pytest.approx(9)
    assert bsce.scores["few"] is None
    assert str(bsce.scores["top1"]) == "51.0 ± 1.4"


def test_gain_is_paired_by_seed():
    table = aggregate([run(seed=0, top1=40), run(seed=1, top1=60), run("bsce", 1, 61), run("bsce", 2, 99)])
    assert table.rows[1].scores["top1"].gain == pytest.approx(1)
    assert aggregate([run("bsce")]).rows[0].scores["top1"].gain is None


def test_one_seed_has_no_spread():
    summary = aggregate([run()]).rows[0].scores["top1"]
    assert summary.std is None
    assert str(summary) == "50.0"


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_gain_over_itself_is_nothing_and_shift_is_the_gain(tops):
    runs = [run(seed=k, top1=top) for k, top in enumerate(tops)]
    runs += [run("la", k, top + 5) for k, top in enumerate(tops)]
    ce, la = aggregate(runs).rows
    assert la.scores["many"].gain == pytest.approx(5)
    assert la.scores["top1"].std == pytest.approx(ce.scores["top1"].std, abs=1e-9)


@pytest.mark.parametrize(
    "change",
    [{"dataset": "cifar10"}, {"imbalance": 10.0}, {"protocol": "common"}, {"epochs": 9}, {"class_counts": [1]}],
)
def test_unlike_runs_do_not_stand_in_one_table(change):
    (name,) = change
    with pytest.raises(UsageError, match=name.replace("_", " ")):
        aggregate([run(), run("bsce", **change)])


def test_one_seed_twice():
    with pytest.raises(UsageError, match="two runs of ce have seed 0"):
        aggregate([run(), run()])


def test_failures_and_order():
    table = aggregate([run("bsce"), run()], failures={"la": ["seed 0: nan"]}, order=["ce", "la", "bsce"])
    assert [row.method for row in table.rows] == ["ce", "la", "bsce"]
    assert table.rows[1].scores["top1"] is None
    markdown = to_markdown(table)
    assert "| la | 0 | n/a | n/a | n/a | n/a |" in markdown
    assert "la: failed, seed 0: nan" in markdown
    assert "0 to 1 seeds" in table.title
    only = aggregate([], failures={"ce": ["seed 0: nan"]})
    assert only.title == "no finished runs"
    assert "n/a" in to_markdown(only)


def test_markdown_csv_and_plain_tell_the_same():
    table = aggregate([run(top1=40), run("bsce", top1=45.25)])
    lines = to_markdown(table).splitlines()
    assert lines[0].startswith("digits, imbalance 50, protocol quick, 20 epochs, 1 seed.")
    assert lines[-1] == "| bsce | 1 | 45.2 | 55.2 | 45.2 | n/a | +5.2 | +5.2 | +5.2 |  |"
    assert len({line.count("|") for line in lines[2:]}) == 1
    ce, bsce = csv.DictReader(to_csv(table).splitlines())
    assert (ce["top1_mean"], ce["top1_std"], ce["top1_gain"], ce["few_mean"]) == ("40.0", "", "", "")
    assert (bsce["top1_mean"], bsce["top1_gain"]) == ("45.25", "5.25")
    plain = to_plain(table)
    assert plain["rows"][1]["top1"] == {"mean": 45.25, "std": None, "gain": 5.25}
    assert plain["rows"][1]["few"] is None
    assert plain["protocol"] == "quick"


def test_signs():
    assert [signed(x) for x in (1.26, -1.0, 0.0, -0.01, None)] == ["+1.3", "-1.0", "+0.0", "+0.0", ""]
