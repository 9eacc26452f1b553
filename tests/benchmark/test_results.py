"""Committed results and the page made of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import longtail
from longtail.benchmark import cost, results
from longtail.config import RunConfig
from longtail.errors import LongtailError, UsageError
from longtail.request import usual_budget


def result(method="ce", seed=0, top1=38.0, **changes):
    metrics = {
        "method": method, "seed": seed, "top1": top1, "many": 65.0, "medium": 37.0, "few": 8.0, "dataset": "cifar100",
        "imbalance": 100.0, "protocol": "published", "epochs": 200, "class_counts": [500, 5],
        "best_test_epoch_top1": top1 + 0.4,
    }  # fmt: skip
    made_by = {"command": "anything", "commit": "0123456789abcdef+changes"}
    made_by |= {"torch": "2.13.0", "longtail": "0.1.0", "processor": "a CPU"}
    rest = {"config": config(method, seed), "runtime": {}, "made_by": made_by}
    return {"command": f"longtail train cifar100 --method {method}", "metrics": {**metrics, **changes}, **rest}


def config(method="ce", seed=0, **changes):
    budget = asdict(usual_budget("cifar100", method, "published"))
    asked = RunConfig(
        dataset="cifar100", method=method, imbalance=100.0, profile="exp", subset_seed=0, dev_per_class=0,
        protocol="published", seed=seed, backbone="resnet32", budget=budget,
    )  # fmt: skip
    return asdict(replace(asked, **changes))


def write(folder: Path, *all_results):
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(all_results):
        (folder / f"{number}.json").write_text(json.dumps(content))


def test_collect_a_run(tmp_path, plain_run):
    run = longtail.train("digits", "ce", **plain_run, out=tmp_path / "run")
    path = results.collect(run.path, tmp_path / "results")
    assert path.name == "digits-if50-ce-quick-s0-precision=fp32-epochs=3.json"
    content = json.loads(path.read_text())
    assert content["metrics"]["top1"] == run.metrics["top1"]
    assert len(content["metrics"]["per_class"]) == 10
    assert content["config"]["budget"]["epochs"] == 3
    assert content["runtime"]["precision"] == "fp32"
    assert content["command"] == (
        "longtail train digits --method ce --imbalance 50 --protocol quick --seed 0 --epochs 3 --precision fp32 "
        "--threads 1 --compile off"
    )
    assert set(content["made_by"]) >= {"commit", "command", "torch", "longtail"}
    page = results.page(results.read(tmp_path / "results"))
    assert "## Handwritten digits, imbalance 50: protocol `quick`, 3 epochs" in page
    assert f"| ce (precision=fp32) | 1 | {run.metrics['top1']:.1f} |" in page
    (run.path / "metrics.json").write_text("{")
    with pytest.raises(LongtailError, match="cannot be read"):
        results.collect(run.path, tmp_path)
    (run.path / "metrics.json").unlink()
    with pytest.raises(LongtailError, match="not finished"):
        results.collect(run.path, tmp_path)


def test_the_command_of_a_student_s_teacher_is_told_as_long_as_the_teacher_is_there(tmp_path, plain_run):
    teacher = longtail.train("digits", "bsce", **plain_run, out=tmp_path / "the-teacher")
    student = longtail.train("digits", "dive", **plain_run, teacher=teacher.path, out=tmp_path / "student")
    content = json.loads(results.collect(student.path, tmp_path / "results").read_text())
    assert content["teacher_command"].startswith("longtail train digits --method bsce ")
    assert content["teacher_command"].endswith(" --out the-teacher")
    assert " --teacher the-teacher " in content["command"]
    assert str(tmp_path) not in json.dumps(content)
    lines = results.page(results.read(tmp_path / "results")).splitlines()
    assert lines.index(content["command"]) == lines.index(content["teacher_command"]) + 1
    shutil.rmtree(teacher.path)
    alone = json.loads(results.collect(student.path, tmp_path / "results").read_text())
    assert alone["teacher_command"] == ""


def test_page_is_ordered_and_stands_beside_published_numbers():
    page = results.page([result(), result(seed=1, top1=39.0), result("ldam+drw", top1=42.0)], frozenset({"drw"}))
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert rows[1].startswith("| ldam+[drw](methods/drw.md) | 1 | 42.0 | 65.0 | 37.0 | 8.0 | 42.4 | 1x | 42.0-42.5 |")
    assert rows[2].startswith("| ce | 2 | 38.5 ± 0.7 |")
    assert "38.9 |" in rows[2]
    assert "42.47, Bag of Tricks gallery" in page
    assert "47.4" not in page  # cross-entropy on a network 16 times as large
    missing = next(line for line in page.splitlines() if line.startswith("Published, and not run yet"))
    assert "`bsce`" in missing
    assert "`ce`" not in missing
    assert "longtail train cifar100 --method ce" in page
    assert "0123456789ab+changes" in page


def test_protocols_have_tables_of_their_own():
    page = results.page([result(), result(protocol="quick", epochs=24), result(imbalance=10.0)])
    assert page.count("## CIFAR-100-LT") == 3
    assert "protocol `quick`, 24 epochs" in page


def test_variants_have_rows_and_development_sets_tables_of_their_own():
    variant = result("ride", top1=50.0)
    variant["config"] = config("ride", options={"ride.experts": 4})
    dev = result("ce", top1=39.5, class_counts=[490, 4])
    dev["config"] = config(dev_per_class=10)
    page = results.page([result(), variant, dev])
    assert "| ride (ride.experts=4) | 1 | 50.0 |" in page
    assert "| ce | 1 | 39.5 |" in page
    assert "| ce | 1 | 38.0 |" in page
    plain, held_out = page.split("10 images a class held out: protocol `published`, 200 epochs")
    assert "39.5" not in plain
    assert "38.0" not in held_out
    readme = results.fill("<!-- results:begin -->\n<!-- results:end -->", [result(), dev])
    assert "| ce | 1 | 38.0 |" in readme
    assert "39.5" not in readme


def test_cost_is_the_measured_one_or_the_card_s(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    file = tmp_path / "benchmarks" / "cost-here.json"
    file.write_text(json.dumps({"cost": {"ce": 1.0, "dive": 2.31}}))
    costs = cost.read(tmp_path)
    page = results.page([result(), result("dive"), result("crt+h2t"), result("bbn")], costs=costs)
    told = {row.split(" | ")[0].strip("| "): row.split(" | ")[7] for row in page.splitlines() if row.startswith("| ")}
    assert told["dive"] == "≈ 2.3x"
    assert told["ce"] == "≈ 1.0x"
    assert told["bbn"] == "2x"
    assert told["crt+h2t"] == "1x plus a few per cent, +h2t: 1x plus 3 %"
    file.write_text("[]")
    with pytest.raises(LongtailError, match="not a measurement"):
        cost.read(tmp_path)


def test_a_cost_is_told_of_the_options_that_it_was_measured_with():
    variant, budget, setup = result("ride"), result("ride"), result("ride")
    variant["config"] = config("ride", options={"ride.experts": 4})
    budget["config"]["budget"]["lr"], budget["changed_budget"] = 0.05, {"lr": 0.05}
    setup["config"], setup["changed_setup"] = config("ride", backbone="resnet20"), {"backbone": "resnet20"}
    page = results.page([result("ride"), variant, budget, setup], costs={"ride": 1.98})
    told = {
        row.split(" | ")[0].strip("| "): row.split(" | ")[7] for row in page.splitlines() if row.startswith("| ride")
    }
    assert told == {
        "ride": "≈ 2.0x", "ride (lr=0.05)": "≈ 2.0x", "ride (ride.experts=4)": "-", "ride (backbone=resnet20)": "-"
    }  # fmt: skip


def test_the_page_says_on_what_was_run_and_that_a_gpu_is_still_to_be_tried():
    page = results.page([result()])
    assert "- a CPU, torch 2.13.0, longtail 0.1.0 at commit 0123456789ab+changes" in page
    assert "No run was made on a GPU yet" in page
    resumed = {**result(), "resumed_by": [{**result()["made_by"], "commit": "f" * 40}]}
    assert "longtail 0.1.0 at commit ffffffffffff" in results.page([resumed])
    fast = result("bsce")
    fast["runtime"], fast["made_by"] = {"device": "cuda:0"}, {**fast["made_by"], "gpu": "an H100"}
    page = results.page([result(), fast])
    assert "- an H100, torch 2.13.0" in page
    assert "No run was made on a GPU yet" not in page


def test_script(tmp_path, capsys):
    write(tmp_path / "results", result())
    page = tmp_path / "docs" / "results.md"
    assert results.main([str(tmp_path / "results"), str(page)]) == 0
    assert page.read_text() == results.page([result()])
    write(tmp_path / "empty")
    assert results.main([str(tmp_path / "empty"), str(page)]) == 0
    assert "No results yet." in page.read_text()
    (tmp_path / "results" / "bad.json").write_text('{"metrics": 1}')
    assert results.main([str(tmp_path / "results"), str(page)]) == 1
    assert "bad.json is not a result" in capsys.readouterr().err
    assert results.main([]) == 2
    assert results.main(["collect", str(tmp_path / "nowhere"), str(tmp_path)]) == 1


def test_script_collects(tmp_path, plain_run, capsys):
    longtail.train("digits", "ce", **plain_run, out=tmp_path / "run")
    assert results.main(["collect", str(tmp_path / "run"), str(tmp_path / "results")]) == 0
    assert Path(capsys.readouterr().out.strip()).exists()


def test_the_readme_is_filled_between_its_marks(tmp_path):
    write(tmp_path / "results", result(), result("ldam+drw", top1=42.0), result(imbalance=10.0, top1=57.0))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    assert results.main([str(tmp_path / "results"), str(tmp_path / "page.md"), str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- results:begin -->\n")
    assert text.endswith("<!-- results:end -->\nafter\n")
    assert "old" not in text
    assert "57.0" not in text
    assert text.index("| ldam+drw | 1 | 42.0") < text.index("| ce | 1 | 38.0")
    readme.write_text("no marks")
    assert results.main([str(tmp_path / "results"), str(tmp_path / "page.md"), str(readme)]) == 1


def test_another_schedule_sets_a_row_apart(tmp_path, digits):
    options = {"epochs": 2, "lr": 0.05, "protocol": "quick", "precision": "fp32", "threads": 1, "compile": "off"}
    run = longtail.train(digits, "ce", **options, out=tmp_path / "run")
    path = results.collect(run.path, tmp_path / "results")
    assert path.name == "digits-if50-ce-quick-s0-precision=fp32-epochs=2-lr=0.05.json"
    (read,) = results.read(tmp_path / "results")
    assert results.label(read) == "ce (precision=fp32, lr=0.05)"
    assert "--epochs 2 --lr 0.05" in read["command"]


def test_a_variant_stands_beside_the_number_of_the_same_variant():
    swept = [result("crt+h2t", top1=47.0), result("crt+h2t", top1=46.0)]
    swept[1]["config"] = config("crt+h2t", options={"h2t.p": 0.1})
    page = results.page(swept)
    row = next(line for line in page.splitlines() if line.startswith("| crt+h2t (h2t.p=0.1) | 1 | 46.0 |"))
    assert row.endswith("| 47.1 |")
    filled = results.fill("<!-- results:begin --><!-- results:end -->", swept)
    assert "| crt+h2t | 1 | 47.0 |" in filled
    assert "h2t.p" not in filled


@pytest.mark.parametrize(("name", "value"), [("backbone", "resnet20"), ("subset_seed", 7), ("weights", "imagenet")])
def test_what_differs_in_more_than_the_seed_is_never_averaged(name, value, tmp_path, capsys):
    plain, other = result(), result(seed=1, top1=20.0)
    other["config"] = config(seed=1, **{name: value})
    for show in (results.page, lambda both: results.fill("<!-- results:begin --><!-- results:end -->", both)):
        with pytest.raises(UsageError, match=f"results of ce differ in more than their seed: {name} {value!r} here"):
            show([plain, other])
    other["changed_setup"] = {name: value}  # as `collect` writes it
    rows = [line for line in results.page([plain, other]).splitlines() if line.startswith("| ce")]
    assert [row.split(" | ")[:3] for row in rows] == [["| ce", "1", "38.0"], [f"| ce ({name}={value})", "1", "20.0"]]
    filled = results.fill("<!-- results:begin --><!-- results:end -->", [plain, other])
    assert "20.0" not in filled
    write(tmp_path / "results", {**plain, "config": {"profile": "exp"}})
    assert results.main([str(tmp_path / "results"), str(tmp_path / "page.md")]) == 1
    assert "0.json is not a result of a run: KeyError 'dataset'" in capsys.readouterr().err


def test_how_often_a_run_looked_and_who_taught_a_first_stage_set_nothing_apart():
    taught = result("dive", seed=1, top1=40.0)
    taught["config"] = config("dive", seed=1, eval_every=5, teacher="pub-bsce")
    assert "| dive | 2 | 39.0 ± 1.4 |" in results.page([result("dive"), taught])


def test_the_readme_s_tables_are_of_the_exponential_profile():
    step = result(seed=1, top1=20.0)
    step["config"] = config(seed=1, profile="step")
    filled = results.fill("<!-- results:begin --><!-- results:end -->", [result(), step])
    assert "| ce | 1 | 38.0 |" in filled
