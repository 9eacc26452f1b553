"""`longtail evaluate`: the metrics again, and other test distributions."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import yaml

from longtail.evaluation import class_prior, label_shift


def test_metrics_are_those_of_the_run(longtail, finished):
    said = longtail("evaluate", str(finished), "--json")
    assert said.status == 0
    written = json.loads((finished / "metrics.json").read_text())
    for name in ("top1", "top5", "many", "medium", "few", "per_class", "ece", "worst_class", "balanced_accuracy"):
        assert said.json[name] == written[name], name
    assert said.json["expected_top1"] == pytest.approx(written["top1"])
    assert said.json["rule"] == "kang"


def test_rule_and_distribution(longtail, finished):
    plain = longtail("evaluate", str(finished), "--json").json
    oltr = longtail("evaluate", str(finished), "--json", "--rule", "mislas").json
    assert oltr["many"] != plain["many"]
    tops = {}
    for name in ("forward", "backward"):
        words = ["--distribution", name, "--test-imbalance", "50"]
        tops[name] = longtail("evaluate", str(finished), "--json", *words).json["expected_top1"]
    # Two epochs of plain cross-entropy know the head classes only.
    assert tops["forward"] > plain["top1"] + 10 > tops["backward"] + 20


def test_expected_accuracy_against_a_loop(longtail, finished):
    said = longtail("evaluate", str(finished), "--json", "--distribution", "forward", "--test-imbalance", "10")
    counts, accuracy = said.json["class_counts"], said.json["per_class"]
    assert counts == sorted(counts, reverse=True)
    weights = [10 ** (-i / 9) for i in range(10)]
    assert said.json["expected_top1"] == pytest.approx(np.dot(weights, accuracy) / sum(weights))
    assert said.json["test_imbalance"] == 10


def test_a_run_that_is_told_the_prior(longtail, finished):
    from longtail import load

    said = longtail("evaluate", str(finished), "--json", "--distribution", "backward").json
    run, prior = load(finished), class_prior(said["class_counts"], "backward", 50)
    logits, targets = run.test_logits().values()
    right = run.posterior.probabilities(logits, prior).argmax(1) == targets
    by_class = [100 * right[targets == c].mean() for c in range(10)]
    assert said["told"]["prior"] == pytest.approx(np.dot(prior, by_class))
    assert said["told"]["prior"] > said["expected_top1"] + 10, "plain cross-entropy, tail classes in front"
    weights = (prior / np.bincount(targets))[targets]
    matched = run.posterior.matched(logits, prior, weights)
    np.testing.assert_allclose(weights @ matched, prior, atol=1e-5)
    assert said["told"]["match"] == pytest.approx(100 * weights @ (matched.argmax(1) == targets))


def test_too_many_logits_are_not_matched(longtail, finished, monkeypatch):
    monkeypatch.setattr(label_shift, "_MOST_TO_MATCH", 4999)  # 500 images, 10 classes
    assert longtail("evaluate", str(finished), "--json").json["told"]["match"] is None
    assert "n/a" in longtail("evaluate", str(finished)).out


def test_table_for_people(longtail, finished):
    said = longtail("evaluate", str(finished), "--distribution", "backward")
    assert said.status == 0
    assert "worst class" in said.out
    assert "top-1, backward test set, imbalance 50" in said.out
    assert "top-1, backward test set, predict --prior with its frequencies" in said.out
    assert "top-1, backward test set, ... and --match" in said.out
    rows = [line.split()[:3] for line in said.out.splitlines() if len(line.split()) == 4]
    assert {("0", "120", "50"), ("9", "2", "50")} <= {tuple(row) for row in rows}
    balanced = longtail("evaluate", str(finished)).out
    assert "mean over classes, predict --prior balanced" in balanced
    assert "mean over classes, ... and --match" in balanced


def test_groups_say_of_how_many_classes_they_are(longtail, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    with np.load(folder / "test_logits.npz") as content:
        logits, targets = content["logits"], content["targets"]
    kept = targets != 9
    np.savez(folder / "test_logits.npz", logits=logits[kept], targets=targets[kept])
    few = next(line for line in longtail("evaluate", str(folder)).out.splitlines() if line.split()[:1] == ["few"])
    size = int(few.split()[-2])
    assert few.split()[-4:] == [str(size - 1), "of", str(size), "classes"]
    np.savez(folder / "test_logits.npz", logits=logits[:19], targets=targets[:19])
    assert longtail("evaluate", str(folder), "--json").json["told"] == {"prior": None, "match": None}
    lines = longtail("evaluate", str(folder)).out.splitlines()
    assert [line.split()[-1] for line in lines if "--match" in line or "--prior" in line] == ["n/a", "n/a"]


def test_a_result_that_was_lost_is_written_again(longtail, finished, tmp_path):
    folder = tmp_path / "a run"
    shutil.copytree(finished, folder)
    before = longtail("evaluate", str(folder), "--json").json
    (folder / "test_logits.npz").unlink()
    lost = longtail("evaluate", str(folder))
    assert (lost.status, "a run is finished, but test_logits.npz is missing" in lost.err) == (1, True)
    assert f"longtail train --resume --out '{folder}' writes it again" in lost.err
    assert longtail("train", "--resume", "--out", str(folder), "--quiet").status == 0
    assert longtail("evaluate", str(folder), "--json").json == before
    for name in ("test_logits.npz", "state.pt"):
        (folder / name).unlink()
    assert longtail("train", "--resume", "--out", str(folder), "--quiet").status == 0  # and trains nothing anew
    assert not (folder / "state.pt").exists()
    assert "train the run again in a new folder" in longtail("evaluate", str(folder)).err


def test_wrong_runs(longtail, finished, unfinished, tmp_path):
    said = longtail("evaluate", "nowhere")
    assert said.status == 1
    assert "nowhere is not a run folder" in said.err
    said = longtail("evaluate", str(unfinished))
    assert said.status == 1
    assert f"longtail train --resume --out {unfinished}" in said.err
    damaged = tmp_path / "damaged"
    shutil.copytree(finished, damaged)
    content = (damaged / "test_logits.npz").read_bytes()
    flipped = content[:100] + bytes(byte ^ 0x55 for byte in content[100:400]) + content[400:]  # zlib's own error
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for broken in (content[: len(content) // 2], b"", b"no archive", flipped, array.getvalue()):
        (damaged / "test_logits.npz").write_bytes(broken)
        said = longtail("evaluate", str(damaged))
        assert said.status == 1, broken
        assert "test_logits.npz is damaged" in said.err
    np.savez(damaged / "test_logits.npz", logits=np.zeros((3, 4)), targets=np.zeros(3, dtype=np.int64))
    said = longtail("evaluate", str(damaged))
    assert said.status == 1
    assert "does not fit its run" in said.err
    assert longtail("evaluate", str(finished), "--rule", "king").status == 2
    assert longtail("evaluate", str(finished), "--distribution", "forward", "--test-imbalance", "0").status == 2


@pytest.mark.parametrize(
    ("verb", "entry", "told"),
    [
        ("evaluate", "data", "data is not understood (KeyError: 'data')"),
        ("predict", "data", "data is not understood (KeyError: 'data')"),
        ("predict", "method", "the request is not understood (unknown method 'newer')"),
        ("predict", "backbone", "the request is not understood (unknown backbone 'newer')"),
    ],
)
def test_a_run_of_another_version(longtail, finished, tmp_path, verb, entry, told):
    shutil.copytree(finished, tmp_path / "run")
    config = yaml.safe_load((finished / "config.yaml").read_text())
    if entry == "data":
        del config["data"]
    else:
        config["run"][entry] = "newer"
    config["made_by"]["longtail"] = "9.0"
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    said = longtail(verb, "run", *(["some.png"] if verb == "predict" else []))
    assert said.status == 1
    assert told in said.err
    assert "it was written by longtail 9.0, this is " in said.err


def test_what_is_no_run_is_told_with_what_it_is(longtail, finished, tmp_path):
    for k in range(5):
        (tmp_path / "grid" / f"r{k}").mkdir(parents=True)
        shutil.copyfile(finished / "config.yaml", tmp_path / "grid" / f"r{k}" / "config.yaml")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    told = {
        "nosuch": "nosuch is not a run folder: there is no such folder\n",
        "notes.txt": "notes.txt is not a run folder: it is a file\n",
        "grid/r1/config.yaml": "it is a file\n  name the folder that it lies in: grid/r1\n",
        "grid": "it holds runs: grid/r0, grid/r1, grid/r2 and 2 more\n  name one of them\n",
        "empty": "empty is not a run folder: it has no config.yaml\n",
    }
    for name, words in told.items():
        said = longtail("evaluate", name)
        assert said.status == 1
        assert words in said.err
