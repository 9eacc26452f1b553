"""The published numbers are well-formed data, and a few are checked by hand."""

from __future__ import annotations

from longtail import methods
from longtail.benchmark.published import find, load, span


def test_rows_are_sound():
    rows = load()
    assert len(rows) > 150
    for row in rows:
        assert methods.canonical(row.method) == row.method
        assert row.dataset in ("cifar10", "cifar100")
        assert row.imbalance in (10, 20, 50, 100, 200)
        assert 30 < row.value < 95
        assert row.source
        assert "deck" not in row.source.lower()
    assert len({(r.method, r.dataset, r.imbalance, r.source) for r in rows}) == len(rows)


def test_more_imbalance_is_harder_within_a_source():
    by_source: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in load():
        by_source.setdefault((row.method, row.dataset, row.source), []).append((row.imbalance, row.value))
    for key, cells in by_source.items():
        values = [value for _, value in sorted(cells)]
        assert values == sorted(values, reverse=True), key


def test_cifar100_is_harder_than_cifar10():
    tens = {(r.method, r.imbalance, r.source): r.value for r in load() if r.dataset == "cifar10"}
    for row in load():
        if row.dataset == "cifar100" and (key := (row.method, row.imbalance, row.source)) in tens:
            assert row.value < tens[key] - 10


def test_numbers_read_by_hand():
    cells = {(r.method, r.dataset, r.imbalance, r.source.split(" (")[0].split(",")[0]): r for r in load()}
    dive = cells["bsce", "cifar100", 100, "DiVE paper table"]
    assert (dive.value, dive.metric) == (42.39, "accuracy")
    tricks = cells["ldam+drw", "cifar100", 100, "Bag of Tricks gallery"]
    assert (tricks.value, tricks.metric) == (42.47, "error")  # printed as an error of 57.53
    assert cells["ce", "cifar10", 200, "table of Jamal et al."].value == 65.68


def test_find_and_span():
    rows = find("ldam+drw", "cifar100", 100)
    assert {row.value for row in rows} >= {42.04, 42.47}
    assert span(rows) == "42.0-42.5"
    assert span(rows[:1]) == f"{rows[0].value:.1f}"
    assert span([]) == ""
    assert find("nothing") == []
