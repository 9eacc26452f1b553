"""The speed scripts run, and a step of the trainer never waits for the device."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("contenders", "throughput", "profile_epoch", "experts", "meta"):
        sys.modules.pop(name, None)


@pytest.fixture
def no_cifar(monkeypatch, tmp_path):
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path))


def test_throughput_reports_every_contender_and_its_ratios(scripts, no_cifar, capsys):
    import throughput

    throughput.main(
        ["--steps", "1", "--repeats", "1", "--threads", "1", "--precision", "fp32", "--batch-size", "4", "--json"]
    )
    report = json.loads(capsys.readouterr().out)
    rows = {row["contender"]: row for row in report["rows"]}
    assert list(rows) == ["plain loop, 0 workers", "plain loop, 2 workers", "trainer", "bare step"]
    assert all(row["images_per_second"] > 0 for row in rows.values())
    trainer, bare = rows["trainer"]["images_per_second"], rows["bare step"]["images_per_second"]
    assert rows["trainer"]["to_bare_step"] == pytest.approx(trainer / bare, rel=1e-2)
    assert report["machine"]["images"] == "random images"


def test_the_trainer_counts_exactly_the_timed_images(scripts):
    import torch

    import contenders
    from longtail.training.runtime import Runtime

    images = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    targets = torch.arange(40) % contenders.CLASSES
    trainer = contenders.Trainer(images, targets, Runtime(), batch=8)
    for steps in (2, 4):  # crosses the end of the five-step epoch
        assert trainer.images_per_second(steps) > 0
        assert trainer.watch.images == 8 * steps


def test_no_step_of_the_trainer_synchronises(scripts, no_cifar, capsys):
    import profile_epoch

    arguments = ["--steps", "2", "--threads", "1", "--precision", "fp32", "--batch-size", "4", "--images", "24"]
    assert profile_epoch.main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["profile"]["waits_per_step"] == 0
    epoch = report["epoch"]
    assert sum(epoch["sections"].values()) == pytest.approx(epoch["seconds"])
    assert 0 < epoch["outside_share"] < 1


def test_the_profile_sees_a_synchronisation(scripts, no_cifar, monkeypatch, capsys):
    from torch.optim import SGD

    import profile_epoch

    step = SGD.step

    def reads_back(self, closure=None):
        self.param_groups[0]["params"][0].sum().item()
        return step(self, closure)

    monkeypatch.setattr(SGD, "step", reads_back)
    arguments = ["--steps", "2", "--threads", "1", "--precision", "fp32", "--batch-size", "4", "--images", "24"]
    assert profile_epoch.main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["profile"]["waits_per_step"] == 1


def test_experts_are_measured_both_ways_beside_a_plain_step(scripts, capsys):
    import experts

    words = ["--steps", "1", "--repeats", "1", "--threads", "1", "--precision", "fp32", "--batch-size", "4", "--json"]
    experts.main(words)
    report = json.loads(capsys.readouterr().out)
    cost = {row["contender"]: row["plain_steps"] for row in report["rows"]}
    assert cost["plain"] == 1
    assert set(cost) == {
        "plain",
        *(f"{kind}, {way}" for kind in ("ride", "independent") for way in ("one by one", "all at once")),
    }
    for kind, best in report["faster"].items():
        assert best["plain_steps"] == min(cost[name] for name in cost if name.startswith(kind))


def test_meta_steps_are_measured_beside_a_plain_step_and_the_double_backward(scripts, capsys):
    import meta

    words = ["--steps", "1", "--repeats", "1", "--threads", "1", "--precision", "fp32", "--batch-size", "4", "--json"]
    meta.main(words)
    report = json.loads(capsys.readouterr().out)
    cost = {row["contender"]: row["plain_steps"] for row in report["rows"]}
    assert cost["plain"] == 1
    assert {"da-meta", "l2rw", "meta-weight-net", "double backward", "part: derivative"} < set(cost)
    assert all(value > 0 for value in cost.values())


def test_the_double_backward_of_the_benchmark_is_the_same_step(scripts):
    import torch

    import meta
    from longtail.training.runtime import Runtime

    losses = []
    for kind in (meta.MetaStep, meta.DoubleBackwardStep):
        torch.manual_seed(0)
        losses.append(kind(Runtime(), 4, meta.da_meta()).loss())
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
