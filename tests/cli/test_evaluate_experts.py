"""`longtail evaluate --experts`: each expert beside the average."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def experts_run(longtail, fast, tmp_path):
    assert longtail("train", "digits", "--method", "ride", "--epochs", "5", *fast, "--out", "run").status == 0
    return tmp_path / "run"


def test_the_comparison_is_that_of_the_saved_logits(longtail, experts_run):
    report = longtail("evaluate", str(experts_run), "--experts", "--json").json["experts"]
    written = json.loads((experts_run / "metrics.json").read_text())
    assert report["average"]["top1"] == pytest.approx(written["top1"])
    with np.load(experts_run / "test_logits.npz") as content:
        right = content["expert_logits"].argmax(2) == content["targets"]
    assert [e["correct"] for e in report["experts"]] == right.sum(1).tolist()
    shown = longtail("evaluate", str(experts_run), "--experts").out
    for number, expert in enumerate(report["experts"], 1):
        won, lost = expert["wrong_average_right"], expert["right_average_wrong"]
        assert f"expert {number}: ({won} - {lost}) / 500 = {expert['average_gain']:+.2f} %" in shown
    assert "correlation of errors" in shown


def test_a_run_of_one_network_has_no_experts(longtail, finished):
    said = longtail("evaluate", str(finished), "--experts")
    assert said.status == 2
    assert "no experts to compare" in said.err
    assert "experts" not in longtail("evaluate", str(finished), "--json").json


def test_of_routed_experts_it_tells_how_far_images_went(longtail, fast, experts_run):
    words = ("train", "digits", "--method", "ride+ea", "--epochs", "5", *fast, "--stage1", "run", "--out", "routed")
    assert longtail(*words).status == 0
    report = longtail("evaluate", "routed", "--experts", "--json").json
    assignment = report["assignment"]
    assert "experts" not in report
    assert assignment["experts"] == 3
    shares = [row["share"] for row in assignment["by_experts"]]
    assert sum(shares) == pytest.approx(100)
    used = sum(number * share / 100 for number, share in enumerate(shares, 1))
    assert 1 <= used < 3
    written = json.loads((experts_run.parent / "routed" / "metrics.json").read_text())
    assert assignment["experts_used"] == pytest.approx(used) == pytest.approx(written["experts_used"])
    right = sum(row["share"] * row["top1"] / 100 for row in assignment["by_experts"] if row["top1"] is not None)
    assert right == pytest.approx(report["top1"])
    assert 0 < assignment["gflops"] < assignment["gflops_of_all"]
    shown = longtail("evaluate", "routed", "--experts").out
    assert f"{used:.2f} of 3 experts on average" in shown
    assert "% saved" in shown
