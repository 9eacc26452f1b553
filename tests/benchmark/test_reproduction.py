"""Published tables as grids: the right rows and runs, and our numbers beside the printed ones."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from longtail import methods
from longtail.benchmark import published, render, reproduction
from longtail.benchmark.grid import Request, Source, arrange, task_of
from longtail.benchmark.reproduction import Wanted, plan, score_of
from longtail.benchmark.standin import stand_in
from longtail.data import long_tail_counts
from longtail.errors import UsageError
from longtail.request import build_recipe

CIFAR_TABLES = [
    "deck-000-cifar10", "deck-000-cifar100", "deck-000-ablation", "deck-001-cifar100", "deck-001-dive-table6",
    "deck-002-cifar10", "deck-002-cifar100", "deck-003-cifar100",
]  # fmt: skip


def finish(cell, top1: float, resumed_by=(), **changes) -> None:
    """Write what a finished run leaves behind."""
    from longtail.config import write_config

    cell.folder.mkdir(parents=True)
    runtime = {"device": "cpu", "precision": "fp32", "threads": 1, "compile": False}
    made_by = {"commit": "0123456789abcdef", "torch": "2.13.0", "processor": "a CPU"}
    write_config(cell.folder, cell.config, runtime=runtime, made_by=made_by, resumed_by=list(resumed_by))
    metrics = {"method": cell.config.method, "seed": cell.config.seed, "top1": top1, **changes}
    (cell.folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize("name", CIFAR_TABLES)
def test_every_row_of_a_method_here_is_run_for_every_seed(name, tmp_path):
    made = plan(name, Wanted(seeds=(0, 1)), tmp_path)
    known = {*methods.names(), *methods.modifiers()}
    assert len(made.comparisons) == len(published.table(name).cells)
    for comparison in made.comparisons:
        number = comparison.published
        if not number.method or not known.issuperset(number.method.split("+")):
            assert comparison.reason
            assert not comparison.cells
            continue
        assert not comparison.reason
        assert [cell.config.seed for cell in comparison.cells] == [0, 1]
        for cell in comparison.cells:
            config = cell.config
            assert (config.method, config.dataset, config.imbalance) == (
                number.method, number.dataset, number.imbalance,
            )  # fmt: skip
            assert (config.protocol, config.profile, config.dev_per_class) == ("published", "exp", number.dev_per_class)
            budget = [config.budget["decay"]] if "decay" in dict(number.options) else []
            assert budget in ([], [(0.1, 0.01)])
            assert {key.split(".")[-1] for key in config.options} == {key for key, _ in number.options} - {"decay"}
    assert len({cell.folder for cell in made.cells}) == len(made.cells)
    assert {cell.folder for c in made.comparisons for cell in c.cells} == {cell.folder for cell in made.cells}


def test_the_runs_of_the_h2t_table(tmp_path):
    made = plan("deck-003-cifar100", Wanted(seeds=(0,), imbalance=100), tmp_path)
    names = [cell.config.method for cell in made.cells]
    assert {"ce+mixup", "ldam+drw", "mislas", "gcl", "crt+h2t", "ride+h2t"} <= set(names)
    for shared in (cell for cell in made.cells if cell.config.method == "crt+h2t"):
        assert shared.first_stage is not None, "H2T's code drops to a tenth and a hundredth, for its CE row too"
    assert names.index("ce+mixup") < names.index("crt+h2t")
    assert names.count("crt+h2t") == 2, "at p = 0 it is the row DR+MU"
    reasons = {c.published.row: c.reason for c in made.comparisons if c.reason}
    assert reasons == {"ABL* (Jin et al. 2023)": "abl not implemented"}


def test_a_schedule_of_a_row_s_own_has_no_place_in_another_protocol(tmp_path):
    made = plan("deck-003-cifar100", Wanted(seeds=(0,), imbalance=100, protocol="quick"), tmp_path)
    (ce,) = (cell for cell in made.cells if cell.config.method == "ce+mixup")
    assert ce.config.budget["decay"] == ()


def test_equal_rows_are_one_run(tmp_path):
    made = plan("deck-001-cifar100", Wanted(seeds=(0,), imbalance=100, methods=["ldam+drw"]), tmp_path)
    assert [c.published.value for c in made.comparisons] == [42.0, 42.04]
    assert len(made.cells) == 1


@pytest.mark.parametrize("name", published.names())
def test_different_runs_of_a_table_never_share_a_folder(name, tmp_path):
    """A number stands beside a run of its own profile, development set, options and length."""
    made = plan(name, Wanted(seeds=(0,)), tmp_path)
    for comparison in made.comparisons:
        for cell in comparison.cells:
            assert cell.config.profile == comparison.published.profile
            assert cell.config.imbalance == comparison.published.imbalance
    assert len({cell.folder for cell in made.cells}) == len(made.cells)


def test_columns_of_other_lengths_are_other_runs(tmp_path, monkeypatch):
    """Of iNaturalist only the sizes are pretended: the files are too large for a test."""
    small = replace(stand_in(Source("cifar10", 100)), name="inat18", profile="natural")
    monkeypatch.setattr(reproduction, "_stand_in", lambda source: small)
    made = plan("deck-001-inat18", Wanted(seeds=(0,), methods=["crt", "ldam+drw"]), tmp_path)
    assert made.cells
    for comparison in made.comparisons:
        for cell in comparison.cells:
            assert cell.config.budget["epochs"] == comparison.published.epochs
    assert {cell.config.budget["epochs"] for cell in made.cells} == {90, 200}
    assert all(f"{cell.config.backbone}-" in cell.folder.name for cell in made.cells)


def test_two_runs_of_one_name_are_refused(tmp_path):
    made = plan("deck-001-cifar100", Wanted(seeds=(0,), methods=["ce"], imbalance=100), tmp_path)
    (cell,) = made.cells
    recipe = build_recipe(cell.config, task_of(cell.config, stand_in(cell.source)))
    requests = [Request(replace(cell.config, backbone=name), recipe, cell.source) for name in ("resnet20", "resnet32")]
    with pytest.raises(ValueError, match="backbone 'resnet32' here, 'resnet20' there"):
        arrange(requests, tmp_path)


def test_another_length_than_the_printed_one_is_said(tmp_path):
    made = plan("mwnet-poster", Wanted(seeds=(0,), methods=["ce"]), tmp_path)
    assert render.notes(made) == ["base CE: printed of 100 epochs, ours has 200"]


def test_large_tables_say_what_they_need(tmp_path):
    made = plan("deck-003-imagenet-lt", Wanted(root=str(tmp_path)), tmp_path / "out")
    assert made.cells == ()
    reasons = {c.reason for c in made.comparisons if c.published.method == "crt+h2t"}
    (reason,) = reasons
    assert "ImageNet_LT_train.txt" in reason
    groups = {c.reason for c in made.comparisons if c.published.groups == "unclear" and c.published.score == "few"}
    assert groups == {"by which rule the classes were grouped is not known"}
    wanted = Wanted(root=str(tmp_path))
    others = {c.published.score: c.reason for c in plan("deck-002-inat17", wanted, tmp_path).comparisons}
    assert "no train2017.json in" in others["top1"]
    assert others["top3"] == "top3 is not measured"


def test_a_wrong_option_of_a_row_is_its_reason():
    number = published.table("deck-001-dive-table6").rows[2].cells["IF100"]
    answer = reproduction._requests(replace(number, options=(("rows", "2"),)), Wanted())
    assert isinstance(answer, str)
    assert "unknown option" in answer


def test_protocol_epochs_and_filters(tmp_path):
    wanted = Wanted(seeds=(3,), protocol="quick", epochs=7, methods=["bsce"], imbalance=50)
    made = plan("deck-001-cifar100", wanted, tmp_path)
    (cell,) = made.cells
    config = cell.config
    assert (config.protocol, config.budget["epochs"], config.seed, config.imbalance) == ("quick", 7, 3, 50)
    for name, wrong, told in (
        ("deck-001-cifar100", Wanted(protocol="quik"), "unknown protocol"),
        ("deck-001-cifar100", Wanted(epochs=0), "epochs is 0"),
        ("deck-001-cifar100", Wanted(imbalance=7), "no number of deck-001-cifar100"),
        ("deck-9", Wanted(), "unknown table"),
    ):
        with pytest.raises(UsageError, match=told):
            plan(name, wrong, tmp_path)


@pytest.mark.parametrize(("imbalance", "dev"), [(1, 0), (100, 0), (200, 10)])
def test_stand_ins_have_the_sizes_of_the_data(imbalance, dev):
    data = stand_in(Source("cifar100", imbalance, dev_per_class=dev))
    assert data.class_counts == long_tail_counts(500 - dev, 100, imbalance, "exp")
    assert data.image_shape == (3, 32, 32)
    assert (0 if data.dev is None else len(data.dev)) == 100 * dev
    assert data.test.targets.bincount().tolist() == [100] * 100


@pytest.mark.parametrize(("protocol", "gap"), [("quick", 7), ("published", 10)])
def test_runs_look_at_the_test_set_as_seldom_as_on_the_real_data(protocol, gap, tmp_path):
    wanted = Wanted(seeds=(0,), protocol=protocol, imbalance=100, methods=["ce"])
    (cell,) = plan("deck-001-cifar100", wanted, tmp_path).cells
    assert cell.config.eval_every == gap


def test_ours_beside_theirs(tmp_path):
    wanted = Wanted(seeds=(0, 1, 2), imbalance=100, methods=["ce", "bsce", "lfme"])
    made = plan("deck-001-cifar100", wanted, tmp_path)
    for cell in made.cells:
        if cell.config.method == "ce" and cell.config.seed < 2:
            finish(cell, 39.0 + cell.config.seed, resumed_by=[{"commit": "f" * 16}])
    first = next(c for c in made.comparisons if c.published.method == "ce")
    ours = first.ours()
    assert (ours.mean, str(ours)) == (39.5, "39.5 ± 0.7")
    assert ours.gain == pytest.approx(39.5 - 39.1)
    assert next(c for c in made.comparisons if c.published.method == "bsce").ours() is None
    how = first.how()
    assert how["seeds"] == [0, 1]
    assert how["commits"] == ["0123456789abcdef", "f" * 16]
    assert how["command"].startswith(
        "longtail train cifar100 --method ce --imbalance 100 --protocol published --seed 0"
    )


def test_groups_follow_the_rule_of_the_table():
    number = published.table("deck-003-p-sweep").rows[3].cells["few"]
    counts = long_tail_counts(500, 100, 100, "exp")
    per_class = [float(k) for k in range(100)]
    metrics = {"class_counts": counts, "per_class": per_class, "few": 84.5, "top1": 1.0}
    assert number.groups == "mislas"
    assert score_of(metrics, number) == pytest.approx(sum(range(71, 100)) / 29)
    kang = published.table("ride-readme").rows[0].cells["few"]
    assert score_of(metrics, kang) == 84.5
    printed = published.table("deck-000-experts").rows[0].cells["class3"]
    assert score_of({"per_class": [1.0, 2.0, 3.0, 4.0]}, printed) == 4.0


@pytest.fixture
def partly(tmp_path) -> reproduction.Reproduction:
    made = plan("deck-002-cifar100", Wanted(seeds=(0, 1), methods=["ce", "l2rw"], imbalance=100), tmp_path)
    for cell in made.cells:
        if cell.config.method == "ce":
            finish(cell, 38.0 + cell.config.seed)
    return made


def test_markdown(partly):
    text = render.to_markdown(partly)
    assert "| Cross-entropy training | ce | 38.32 / 38.5 ± 0.7 (+0.2) |" in text
    assert "| L2RW [43]* | l2rw | 40.23 |" in text
    assert "The source prints errors" in text
    assert "- L2RW [43]: their own run" in text
    assert "# seeds 0, 1; commit 0123456789ab; a CPU, fp32, torch 2.13.0" in text
    assert "longtail train cifar100 --method ce" in text


def test_csv_has_a_line_for_every_number(partly):
    rows = list(csv.DictReader(render.to_csv(partly).splitlines()))
    assert len(rows) == len(partly.comparisons) == 3
    assert (rows[0]["printed"], rows[0]["published"], rows[0]["metric"]) == ("61.68", "38.32", "error")
    assert (float(rows[0]["ours"]), rows[0]["seeds"], rows[0]["protocol"]) == (38.5, "0 1", "published")
    assert rows[1]["ours"] == ""
    assert rows[1]["note"] == "their own run"


def test_latex_is_balanced_and_escaped(tmp_path, partly):
    text = render.to_latex(partly)
    assert r"Cross-entropy training & 38.32 & 38.5 $\pm$ 0.7 & $+0.2$ \\" in text
    columns = text.splitlines()[1].count("r") - "tabular".count("r")
    for line in text.splitlines():
        if line.endswith(r"\\") and not line.startswith("Method"):
            assert line.count("&") == columns
    odd = render.to_latex(plan("deck-001-dive-table6", Wanted(seeds=(0,)), tmp_path / "odd"))
    assert r"\# 1 &" in odd
    daggers = render.to_latex(plan("deck-001-inat18", Wanted(seeds=(0,), root=str(tmp_path)), tmp_path / "more"))
    assert r"LWS\ddag{}* [20]" in daggers


def test_html_stands_alone_and_is_well_formed(partly):
    from xml.etree import ElementTree

    text = render.to_html(partly)
    assert "http" not in text
    body = text[text.index("<table") : text.index("</table>") + len("</table>")]
    table = ElementTree.fromstring(body)
    assert len(table.findall("./tbody/tr")) == 3
    assert table.find("./tbody/tr/td[@class='above']").text == "+0.2"
    assert "prefers-color-scheme" in text


def test_another_budget_is_said(tmp_path):
    made = plan("deck-001-cifar100", Wanted(seeds=(0,), protocol="quick", methods=["ce"]), tmp_path)
    assert "Ours has another budget" in render.to_markdown(made)
    assert "1 seed" in render.title(made)


def test_tables_share_runs(tmp_path):
    one = plan("deck-001-cifar100", Wanted(seeds=(0,), methods=["ldam+drw"], imbalance=100), tmp_path)
    other = plan("deck-003-cifar100", Wanted(seeds=(0,), methods=["ldam+drw"], imbalance=100), tmp_path)
    assert one.cells[0].folder == other.cells[0].folder
    assert Path(one.cells[0].folder).parent == tmp_path
