"""`longtail evaluate --aggregate`: weights of experts from unlabelled test images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from longtail.data import ImageSet
from longtail.evaluation import class_prior
from longtail.report.aggregation import aggregate_experts
from longtail.run import load


@pytest.fixture(scope="module")
def sade_run(tmp_path_factory):
    import longtail

    folder = tmp_path_factory.mktemp("sade") / "run"
    fast = {"precision": "fp32", "threads": 1, "compile": "off", "device": "cpu"}
    return longtail.train("digits", "sade", protocol="quick", epochs=6, out=folder, **fast)


def test_the_three_test_sets(longtail, sade_run):
    report = longtail("evaluate", str(sade_run.path), "--aggregate", "--json").json["aggregation"]
    assert report["test_imbalance"] == 50
    assert list(report["tests"]) == ["balanced", "forward", "backward"]
    written = json.loads((sade_run.path / "metrics.json").read_text())
    assert report["tests"]["balanced"]["mean_top1"] == pytest.approx(written["top1"])
    assert report["tests"]["balanced"]["images"] == 500
    for test in report["tests"].values():
        assert len(test["weights"]) == 3
        assert sum(test["weights"]) == pytest.approx(1)
        assert 0 <= test["weighted_top1"] <= 100
    sizes = [report["tests"][name]["images"] for name in ("forward", "backward")]
    assert sizes == [sum(int(50 * 50 ** (-k / 9) + 1e-9) for k in range(10))] * 2
    again = longtail("evaluate", str(sade_run.path), "--aggregate", "--json").json["aggregation"]
    assert again == report


def test_the_table_for_people(longtail, sade_run):
    said = longtail("evaluate", str(sade_run.path), "--aggregate", "--test-imbalance", "10")
    assert said.status == 0
    assert "backward, imbalance 10" in said.out
    assert "expert 3" in said.out


def test_labels_only_choose_and_count(digits, sade_run):
    """With the same images chosen, other labels give the same weights."""
    prior = {"balanced": class_prior(digits.class_counts, "balanced", 1.0)}
    shuffled = digits.test.targets[torch.randperm(len(digits.test), generator=torch.Generator().manual_seed(0))]
    true, false = (
        aggregate_experts(sade_run, ImageSet(digits.test.images, y), prior) for y in (digits.test.targets, shuffled)
    )
    assert true["balanced"]["weights"] == false["balanced"]["weights"]
    assert true["balanced"]["mean_top1"] > false["balanced"]["mean_top1"]


def test_classes_without_test_images_are_left_out(digits, sade_run):
    part = digits.test.subset((digits.test.targets < 4).nonzero().flatten())
    prior = {"forward": class_prior(digits.class_counts, "forward", 50.0)}
    report = aggregate_experts(load(sade_run.path), part, prior)["forward"]
    counts = [max(int(50 * 50 ** (-k / 9) + 1e-9), 1) for k in range(4)]
    assert report["images"] == sum(counts)
    assert np.isfinite(report["weights"]).all()


def test_a_run_of_one_network_is_refused(longtail, finished):
    said = longtail("evaluate", str(finished), "--aggregate")
    assert said.status == 2
    assert "nothing to weigh" in said.err
