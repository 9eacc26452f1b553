"""The published numbers are well-formed data; what can be recomputed is, and a few are checked by hand."""

from __future__ import annotations

import difflib
from importlib.resources import files

import pytest

from longtail import methods
from longtail.benchmark import published
from longtail.benchmark.published import find, load, span
from longtail.errors import UsageError
from longtail.training.budget import Context, augmentation_for, budget_for

TABLES = [published.table(name) for name in published.names()]
KANG = {"imagenet-lt": (385, 479, 136), "places-lt": (131, 163, 71), "inat18": (842, 4076, 3224)}
OLTR = {"imagenet-lt": (391, 463, 146), "places-lt": (132, 156, 77)}
MISLAS = {
    "imagenet-lt": (390, 445, 165), "places-lt": (131, 157, 77), "inat18": (842, 3701, 3599), "cifar100": (36, 35, 29),
}  # fmt: skip
SIZES = {"kang": {**KANG, "cifar100": (35, 35, 30)}, "oltr": OLTR, "mislas": MISLAS}


def test_every_file_is_a_table_and_every_table_a_file():
    there = {path.name for path in files("longtail.benchmark").joinpath("tables").iterdir()}
    assert there - {"tables.yaml", "README.md"} == {f"{table.name}.csv" for table in TABLES}


def test_numbers_are_sound():
    rows = load()
    assert len(rows) > 1500
    for row in rows:
        assert row.dataset in published.DATASETS
        assert row.score in published.SCORES
        assert 0 < row.value < 100
        assert row.imbalance is None or 1 <= row.imbalance <= 996
        assert row.source
        assert "deck" not in row.source.lower()
        if row.table:
            assert row.row
            assert row.tag in ("slides", "README", "poster", "figure", "log", "issue", "page", "third party"), row
            assert row.groups in ("", "kang", "oltr", "mislas", "unclear")
        converted = 100 - row.printed if row.metric == "error" and row.score != "ece" else row.printed
        assert row.value == pytest.approx(converted)


def test_no_number_is_a_memory():
    for table in TABLES:
        for cell in table.cells:
            assert "memory" not in cell.tag + cell.source + cell.note


def test_names_are_canonical_and_no_misspelling_of_a_method_here():
    known = [*methods.names(), *methods.modifiers()]
    for row in load():
        parts = row.method.split("+")
        if set(parts) <= set(known):
            assert methods.canonical(row.method) == row.method
        for part in set(parts) - set(known) - {""}:
            assert not difflib.get_close_matches(part, known, n=1, cutoff=0.8) or part == "ace", part


def cell(table: str, row: str, column: str) -> published.Published:
    found = [r.cells[column] for r in published.table(table).rows if r.label == row]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("table", [t for t in TABLES if "many" in t.columns], ids=lambda table: table.name)
def test_groups_average_to_the_overall_accuracy(table):
    """All = sum of group size x group accuracy / C; where that fails, the row says so and names no rule."""
    for row in table.rows:
        if not {"many", "medium", "few", "top1"} <= set(row.cells):
            continue
        number = row.cells["top1"]
        groups = [row.cells[name].value for name in ("many", "medium", "few")]
        one_digit = all(round(g, 1) == g for g in groups)
        off = {rule: abs(average(groups, sizes[number.dataset]) - number.value) for rule, sizes in SIZES.items()
               if number.dataset in sizes}  # fmt: skip
        by_rule = min(off.values()) if number.groups == "unclear" else off[number.groups or "kang"]
        said = "average" in row.note
        assert (by_rule > (0.105 if one_digit else 0.012)) == said, (row.label, off)


def average(groups, sizes) -> float:
    return sum(size * group for size, group in zip(sizes, groups, strict=True)) / sum(sizes)


def test_errors_of_one_paper_are_the_accuracies_that_another_quotes():
    """Both tables of the distillation talk quote Jamal et al., one the LDAM row and one the focal row."""
    for quoted, row, digits in (
        ("Domain Adaption [19]", "Ours with LDAM loss", 1),
        ("Meta-learning [16]", "Ours with focal loss", 2),
    ):
        for column in ("IF100", "IF50", "IF10"):
            there = cell("deck-002-cifar100", row, column)
            assert there.metric == "error"
            assert there.value == pytest.approx(100 - there.printed)
            # 49.16 became 49.1: cut and not rounded
            assert cell("deck-001-cifar100", quoted, column).value == pytest.approx(there.value, abs=1.0 * 10**-digits)


def test_copied_rows_agree_with_where_they_were_copied_from():
    poster = {(c.method, c.dataset, c.imbalance): c.value for c in published.table("mwnet-poster").cells}
    disagreeing = []
    for name in ("deck-002-cifar10", "deck-002-cifar100"):
        for number in published.table(name).cells:
            key = (number.method, number.dataset, number.imbalance)
            if number.row.endswith("*") and abs(poster.get(key, number.value) - number.value) > 0.006:
                disagreeing.append(key)
                assert f"IF{number.imbalance:g}" in number.note
    assert disagreeing == [("cb-finetune", "cifar10", 20.0), ("l2rw", "cifar10", 20.0)]


def test_the_state_of_the_art_row_is_the_maximum_of_the_rows_above_it():
    for name in ("deck-000-cifar10", "deck-000-cifar100"):
        *above, best, _ = published.table(name).rows
        for column, number in best.cells.items():
            assert number.value == max(row.cells[column].value for row in above if column in row.cells)
            dataset = name.removeprefix("deck-000-")
            assert cell("deck-000-ablation", "SOTA", f"{dataset} {column}").value == number.value
            last = cell("deck-000-ablation", "Ours(diversity+TA)", f"{dataset} {column}")
            assert last.value == cell(name, "Ours", column).value


def test_class_accuracies_of_the_printed_run_average_to_its_top1():
    for row in published.table("deck-000-experts").rows:
        classes = [row.cells[f"class{k}"].value for k in range(10)]
        assert sum(classes) / 10 == pytest.approx(row.cells["top1"].value, abs=1e-9)
    average, expert = published.table("deck-000-experts").rows[:2]
    assert average.cells["top1"].value - expert.cells["top1"].value == pytest.approx((478 - 237) / 100)


def test_more_imbalance_is_harder_within_a_row():
    exceptions = {("deck-002-cifar10", "Class-balanced fine-tuning [8]"), ("deck-002-cifar10", "L2RW [43]*")}
    exceptions |= {("deck-002-cifar10", "Class-balanced fine-tuning [8]*")}
    for table in TABLES:
        for row in table.rows:
            series: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
            for c in row.cells.values():
                if c.dataset.startswith("cifar") and c.score == "top1":
                    series.setdefault((c.dataset, c.profile, c.score), []).append((c.imbalance, c.value))
            for values in series.values():
                ordered = [value for _, value in sorted(values)]
                if ordered != sorted(ordered, reverse=True):
                    assert (table.name, row.label) in exceptions, (table.name, row.label)
                    assert row.note


def test_numbers_read_by_hand():
    assert cell("deck-000-cifar100", "Ours", "IF100").value == 51.53
    assert cell("deck-001-dive-table6", "# 5", "IF10").value == 59.10
    tricks = cell("bot-gallery", "LDAM DRW", "cifar100 IF100")
    assert (tricks.value, tricks.printed, tricks.metric) == (42.47, 57.53, "error")
    assert cell("deck-002-cifar10", "Cross-entropy training", "IF200").value == 65.68
    places = cell("deck-003-places-lt", "RIDE+H2T (CC)", "few")
    assert (places.value, places.groups, places.backbone, places.imbalance) == (35.62, "mislas", "ResNet-152", 996)
    assert cell("deck-001-inat18", "DiVE", "200ep top5").epochs == 200
    assert cell("vs-paper", "VS", "cifar10 step IF100").profile == "step"
    ride = cell("deck-000-cifar100", "RIDE(21)", "IF100")
    assert ride.options == (("experts", "4"),)
    assert "four experts" in ride.note
    assert cell("deck-002-cifar100", "L2RW [43]", "IF200").dev_per_class == 10


def test_find_gives_each_number_once_and_leaves_variants_out():
    rows = find("ldam+drw", "cifar100", 100)
    assert [row.value for row in rows] == [42.04, 42.0, 42.47]
    assert span(rows) == "42.0-42.5"
    assert span(rows[:1]) == f"{rows[0].value:.1f}"
    assert span([]) == ""
    assert find("nothing") == []
    assert 49.1 not in {row.value for row in find("ride", "cifar100", 100)}  # four experts
    assert all(row.profile == "exp" and row.score == "top1" for row in find("vs"))
    wide = {row.value: row.is_usual for row in find("ce", "cifar100", 100)}
    assert not wide[47.4]  # another network
    assert wide[38.32]


def test_rows_of_methods_that_are_here_can_be_built():
    """What a row says of a method's options is what the method takes, values included."""
    plain = augmentation_for("cifar100", (0.5,) * 3, (0.2,) * 3)
    budget = budget_for("cifar100", "published")
    context = Context(tuple(range(100, 0, -1)), "published", budget, plain, plain, dev_per_class=4)
    wanted = {(row.method, row.options) for row in load() if row.method.split("+")[0] in methods.names()}
    assert ("ride+h2t", (("ride.classifier", "linear"),)) in wanted
    for name, options in wanted:
        own = {option: value for option, value in options if option != "decay"}  # that is of the budget
        assert methods.build(name, context, own).stages


def test_unknown_table():
    with pytest.raises(UsageError, match="deck-003-cifar100"):
        published.table("deck-003-cifar10")


def test_a_variant_is_found_whether_or_not_its_option_names_its_part():
    (found,) = published.find("crt+h2t", "cifar100", 100.0, {"h2t.p": 0.1})
    assert found.value == 47.11
    (linear,) = published.find("ride+h2t", "places-lt", options={"ride.classifier": "linear"})
    assert linear.value == 41.38
    assert all(not row.options for row in published.find("crt+h2t"))
