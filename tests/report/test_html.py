"""The report page: its numbers are those of the runs, and nothing that data says can become code."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import Page, copied

from longtail.report.html import report_page
from longtail.report.sections.answers import Answers
from longtail.report.sections.calibration import calibration_section, thresholds
from longtail.report.sections.markup import join, tag
from longtail.report.sections.mistakes import group_shares, worst_pairs
from longtail.report.sections.study import make_study
from longtail.run import Run

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style></script><b>",
    "a & b",
    "' onload='x",
)


@pytest.fixture(scope="module")
def study(finished_runs):
    return make_study(list(finished_runs.values()))


@pytest.fixture(scope="module")
def text(finished_runs):
    return report_page(list(finished_runs.values()))


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def number(text):
    return float(re.search(r"[-+−]?[\d.,]+", text).group().replace("−", "-").replace(",", ""))


# One file that needs nothing --------------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(parsed, text):
    for _, attributes in parsed.elements:
        for name in ("src", "href", "data", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    assert not parsed.all("link")
    assert "http:" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_only_its_own_script_may_run(parsed, text):
    (policy,) = [m["content"] for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy.startswith("default-src 'none'")
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_the_same_runs_give_the_same_page(finished_runs, text):
    assert report_page(list(finished_runs.values())) == text


def test_ids_are_unique_and_links_and_readouts_lead_somewhere(parsed):
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in parsed.all("a")] + [a["for"] for a in parsed.all("label")]
    targets += [a["data-readout"] for a in parsed.all("div") if "data-readout" in a]
    assert len(targets) > 10
    assert set(targets) <= set(ids)


def test_no_path_of_this_machine_is_told(text, runs_folder):
    assert str(runs_folder) not in text
    assert str(Path.home()) + "/" not in text


# Numbers ----------------------------------------------------------------------------------------------------------


def test_seeds_are_averaged_and_gains_are_against_cross_entropy(parsed, finished_runs, study):
    assert [entry.label for entry in study.entries] == ["ce", "bsce", "ride"]
    assert study.baseline is study.entries[0]
    rows = {row[0]: row for row in parsed.tables["comparison-table"][1:]}
    assert list(rows) == ["ce", "bsce", "ride"]
    runs = {method: [r.metrics for r in finished_runs.values() if r.config.method == method] for method in rows}
    for place, score in enumerate(("top1", "many", "medium", "few"), 2):
        values = [m[score] for m in runs["bsce"]]
        base = [m[score] for m in runs["ce"]]
        mean, spread, gain = map(number, re.findall(r"[-+−]?[\d.]+", rows["bsce"][place]))
        assert mean == pytest.approx(np.mean(values), abs=0.051)
        assert spread == pytest.approx(np.std(values, ddof=1), abs=0.051)
        assert gain == pytest.approx(np.mean(values) - np.mean(base), abs=0.051)
        # One seed against the same seed of the baseline.
        single = number(rows["ride"][place].split()[-1])
        assert single == pytest.approx(runs["ride"][0][score] - base[0], abs=0.051)
    assert rows["ce"][1:3][0] == "2"


def test_the_class_table_has_every_class_with_its_accuracies(parsed, finished_runs):
    rows = parsed.tables["classes-1"]
    assert rows[0] == ["class", "training images", "group", "ce", "bsce", "change"]
    counts = finished_runs["ce-0"].metrics["class_counts"]
    assert [int(row[1]) for row in rows[1:]] == sorted(counts, reverse=True)
    names = finished_runs["ce-0"].task.class_names
    for row in rows[1:]:
        k = names.index(row[0])
        before, now = (
            np.mean([finished_runs[f"{m}-{s}"].metrics["per_class"][k] for s in (0, 1)]) for m in ("ce", "bsce")
        )
        assert row[2] == ("many" if counts[k] > 100 else "few" if counts[k] < 20 else "medium")
        assert number(row[3]) == pytest.approx(before, abs=0.051)
        assert number(row[4]) == pytest.approx(now, abs=0.051)
        assert number(row[5]) == pytest.approx(now - before, abs=0.101)


def test_the_headline_counts_gainers_and_losers(parsed, study):
    gains = study.gains(study.entries[1]).round(1)
    up, down = int((gains > 0).sum()), int((gains < 0).sum())
    assert f"{up} class{'' if up == 1 else 'es'} gained, {down} lost" in parsed.words


def test_training_curves_are_those_of_the_history(parsed, finished_runs):
    rows = parsed.tables["loss-2"]
    told = [(row[0], row[1], number(row[2])) for row in rows[1:]]
    wanted = [
        (f"epoch {k}", record["stage"], pytest.approx(record["loss"], rel=1e-3))
        for k, record in enumerate(finished_runs["ride"].history, 1)
    ]
    assert told == wanted
    last = parsed.tables["accuracy-table"][-1]
    mean = np.mean([finished_runs[f"bsce-{s}"].history[-1]["test_top1"] for s in (0, 1)])
    assert number(last[2]) == pytest.approx(mean, abs=0.051)


def test_settings_hold_the_command_of_every_run(parsed, finished_runs):
    for run in finished_runs.values():
        method, seed = run.config.method, run.config.seed
        said = f"longtail train digits --method {method} --imbalance 50 --protocol quick --seed {seed} "
        assert said in parsed.words


def test_group_shares_are_what_counting_gives(study):
    answers = study.entries[1].answers[0]
    shares = group_shares(study, answers)
    count = Counter()
    for target, prediction in zip(answers.targets.tolist(), answers.predictions.tolist(), strict=True):
        what = "right" if target == prediction else study.group_of[prediction]
        count[study.group_of[target], what] += 1
    for group, parts in shares.items():
        total = sum(n for (g, _), n in count.items() if g == group)
        assert sum(parts.values()) == pytest.approx(100)
        for part, share in parts.items():
            assert share == pytest.approx(100 * count[group, part] / total)


def test_the_worst_pairs_come_first(study):
    answers = study.entries[0].answers[0]
    wrong = Counter(
        (t, p) for t, p in zip(answers.targets.tolist(), answers.predictions.tolist(), strict=True) if t != p
    )
    pairs = worst_pairs(study, answers)
    assert [pair.images for pair in pairs] == sorted(wrong.values(), reverse=True)[
        : len(pairs)
    ]  # 50 images in each class
    assert all(wrong[pair.true, pair.taken] == pair.images for pair in pairs)
    assert all(pair.share == pytest.approx(100 * pair.images / 50) for pair in pairs)


def test_a_run_without_mistakes_has_no_pairs(study):
    answers = study.entries[0].answers[0]
    assert worst_pairs(study, replace(answers, predictions=answers.targets)) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_confidence_to_act_on_is_the_lowest_that_keeps_the_promise(seed):
    rng = np.random.default_rng(seed)
    sure = rng.integers(1, 40, 400) / 40  # many equal confidences
    right = rng.random(400) < sure**0.4
    answers = Answers(np.zeros(400, int), np.where(right, 0, 1), sure)
    for goal, line, share in thresholds(answers, (80, 90, 95), 30):
        possible = [c for c in np.unique(sure) if (sure >= c).sum() >= 30 and 100 * right[sure >= c].mean() >= goal]
        assert line == (min(possible) if possible else None)
        assert share == (pytest.approx(100 * (sure >= min(possible)).mean()) if possible else 0)


def test_of_a_few_answers_no_confidence_is_told(study):
    few = replace(
        study.entries[0].answers[0], targets=np.zeros(9, int), predictions=np.zeros(9, int), confidences=np.ones(9)
    )
    entry = replace(study.entries[0], answers=(few,))
    words = calibration_section(replace(study, entries=(entry,), baseline=None))
    assert "9 answers on the test set are too few to say from which confidence up to act; it takes 30." in words
    assert "none does" not in words


# Hostile data -----------------------------------------------------------------------------------------------------


def test_names_from_data_cannot_become_code(finished_runs, digits, tmp_path, monkeypatch):
    names = (*HOSTILE, *digits.class_names[len(HOSTILE) :])
    changes = {"data": {"class_names": list(names), "name": HOSTILE[0]}, "run": {"dataset": HOSTILE[0]}}
    runs = [copied(finished_runs[name], tmp_path / name, **changes) for name in ("ce-0", "ride")]
    for run in runs:
        history = [{**record, "stage": HOSTILE[k % 2]} for k, record in enumerate(run.history)]
        (run.path / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
        content = json.loads((run.path / "metrics.json").read_text())
        (run.path / "metrics.json").write_text(json.dumps({**content, "dataset": HOSTILE[0]}))
    hostile = replace(digits, class_names=names)
    monkeypatch.setattr("longtail.report.sections.examples.data_of", lambda run, root: hostile)
    monkeypatch.setattr("longtail.report.sections.setup.command_of", lambda config, runtime: shlex.quote(HOSTILE[1]))
    parsed = Page(report_page([Run(run.path) for run in runs]))
    assert len(parsed.all("script")) == len(parsed.all("style")) == 1
    assert parsed.all("img")
    for name, attributes in parsed.elements:
        assert not [key for key in attributes if key.startswith("on")], name
    for name in HOSTILE:
        assert name in [row[0] for row in parsed.tables["classes-0"]]
        assert " ".join(name.split()) in parsed.words


def test_only_what_tag_makes_is_not_escaped():
    assert tag("p", "<b>", tag("i", "&"), ['"'], 3, None, title='"<x>"') == (
        '<p title="&quot;&lt;x&gt;&quot;">&lt;b&gt;<i>&amp;</i>&quot;3</p>'
    )
    assert join("a", "<") == "a&lt;"
    assert tag("input", for_="a", data_v=1.5, hidden=True, lang=None) == '<input for="a" data-v="1.5" hidden/>'


def test_confidences_are_the_softmax_of_the_logits(study, finished_runs):
    with np.load(finished_runs["ce-0"].path / "test_logits.npz") as content:
        logits = content["logits"].astype(np.float64)
    wanted = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    np.testing.assert_allclose(study.entries[0].answers[0].confidences, wanted, rtol=1e-12)
