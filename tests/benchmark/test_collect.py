"""What a result's file is called, and that it never takes the place of another experiment's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from longtail.benchmark import collect, results
from longtail.config import RunConfig, write_config
from longtail.errors import LongtailError, UsageError
from longtail.request import Task, usual_budget

TASK = asdict(Task("cifar100", (500, 5), ("a", "b"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3))


def asked(method="ride", protocol="common", **changes) -> RunConfig:
    usual = RunConfig(
        dataset="cifar100", method=method, imbalance=100.0, profile="exp", subset_seed=0, dev_per_class=0,
        protocol=protocol, seed=0, backbone="resnet32", budget=asdict(usual_budget("cifar100", method, protocol)),
    )  # fmt: skip
    return replace(usual, **changes)


@pytest.fixture
def collected(tmp_path):
    """Write what a finished run leaves behind, as far as a result is made of it, and collect that."""

    def make(config, name="run", top1=40.0):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write_config(folder, config, data=TASK, made_by={}, resumed_by=[{"commit": "b", "command": "x --out /me/run"}])
        metrics = {"method": config.method, "seed": config.seed, "top1": top1}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        np.savez(folder / "test_logits.npz", logits=np.eye(2), targets=np.arange(2))
        return collect.collect(folder, tmp_path / "results")

    return make


@pytest.mark.parametrize(
    ("changes", "name", "row"),
    [
        ({}, "ride-common-s0", "ride"),
        ({"precision": "bf16"}, "ride-common-s0", "ride"),
        ({"precision": "fp32"}, "ride-common-s0-precision=fp32", "ride (precision=fp32)"),
        ({"backbone": "resnet20"}, "ride-common-s0-backbone=resnet20", "ride (backbone=resnet20)"),
        ({"subset_seed": 7}, "ride-common-s0-subset_seed=7", "ride (subset_seed=7)"),
        ({"weights": "/data/cifar.pth"}, "ride-common-s0-weights=cifar.pth", "ride (weights=cifar.pth)"),
        ({"teacher": "/runs/large"}, "ride-common-s0-teacher=large", "ride (teacher=large)"),
        ({"freeze_backbone": True}, "ride-frozen-common-s0", "ride (freeze_backbone=True)"),
        ({"backbone": "timm:a/b"}, "ride-common-s0-backbone=timm:ab", "ride (backbone=timm:a/b)"),
    ],
)
def test_what_differs_from_the_defaults_stands_in_file_name_and_row(changes, name, row, collected, tmp_path):
    assert collected(asked(**changes)).name == f"cifar100-if100-{name}.json"
    (read,) = results.read(tmp_path / "results")
    assert results.label(read) == row


def test_a_result_takes_the_place_of_its_own_configuration_only(collected):
    path = collected(asked(precision="bf16"))
    before = path.read_text()
    with pytest.raises(UsageError, match=r"another configuration: precision 'auto' here, 'bf16' there"):
        collected(asked())
    assert path.read_text() == before
    assert collected(asked(precision="bf16"), top1=41.0) == path
    assert json.loads(path.read_text())["metrics"]["top1"] == 41.0
    path.write_text("[]")
    with pytest.raises(LongtailError, match="is there and is not a result of a run"):
        collected(asked())


def test_lost_answers_are_told_with_how_they_come_back(collected, tmp_path):
    collected(asked())
    (tmp_path / "run" / "test_logits.npz").unlink()
    with pytest.raises(LongtailError, match=r"test_logits\.npz is missing\n  train the run again in a new folder"):
        collect.collect(tmp_path / "run", tmp_path / "results")


def test_who_took_the_run_on_is_told(collected):
    (maker,) = json.loads(collected(asked()).read_text())["resumed_by"]
    assert maker == {"commit": "b", "command": "x --out run"}


def test_a_teacher_that_the_method_would_have_trained_itself_is_not_told(collected, tmp_path):
    teacher = str(tmp_path / "teacher")
    for own, name in ((asked("bsce"), "dive-common-s0"), (asked("ce"), "dive-common-s0-teacher=teacher")):
        collected(own, name="teacher")
        assert collected(asked("dive", teacher=teacher)).name == f"cifar100-if100-{name}.json"
    # A teacher with a stage less than the method's own, or one more, is another.
    for row, told in (("teacher", ""), ("I", "-teacher=teacher"), ("III-soft", "-teacher=teacher")):
        collected(asked("ssd", options={"ssd.row": row}), name="teacher")
        assert collected(asked("ssd", teacher=teacher)).name == f"cifar100-if100-ssd-common-s0{told}.json"
    collected(asked("bsce", seed=1), name="teacher")
    assert collected(asked("dive", teacher=teacher)).name.endswith("-teacher=teacher.json")
