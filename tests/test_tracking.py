"""What experiment trackers hear of a run, by one that only remembers; and the real ones, as extras."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail import folder, tracking
from longtail.cli.main import main
from longtail.errors import LongtailError, UsageError
from longtail.training.loop import InterruptedRunError
from longtail.training.progress import SilentReporter
from reporters import Crash, Stop


class Remembering:
    """A tracker that keeps all it hears, each part of a run by itself."""

    parts: list[Remembering]
    fails_at: int | None
    starts: bool

    def __init__(self, folder, config, known, step):
        if not self.starts:
            raise ConnectionError("no answer\nfrom there")
        self.id = known or f"id-of-{folder.name}"
        self.config, self.known, self.step = config, known, step
        self.heard = []
        self.finished = None
        self.parts.append(self)

    def log(self, values, step):
        if step == self.fails_at:
            raise ConnectionError("the line is dead")
        self.heard.append((step, dict(values)))

    def final(self, values, step):
        self.told_last = step, dict(values)

    def close(self, finished):
        self.finished = finished


@pytest.fixture
def tracker(monkeypatch):
    """The name of a tracker that remembers; ``json`` is a package that is installed everywhere."""
    for name, value in {"parts": [], "fails_at": None, "starts": True}.items():
        monkeypatch.setattr(Remembering, name, value, raising=False)
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "TRACKERS", {**tracking.TRACKERS, "json": Remembering})
    return "json"


def history(run):
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def test_each_epoch_is_told_under_its_stage_and_the_metrics_at_the_end(tracker, digits, plain_run, tmp_path):
    run = longtail.train(digits, "crt", out=tmp_path / "run", eval_every=2, track=tracker, **plain_run)
    (part,) = Remembering.parts
    lines = history(run.path)
    assert len({line["stage"] for line in lines}) == 2
    assert [step for step, _ in part.heard] == list(range(1, len(lines) + 1))
    for line, (step, told) in zip(lines, part.heard, strict=True):
        for key in ("loss", "lr", "images_per_second"):
            assert told.pop(f"{line['stage']}/{key}") == line[key]
        assert told == ({"test/top1": line["test_top1"]} if step % 2 == 0 or step == len(lines) else {})
    last_step, final = part.told_last
    assert last_step == len(lines)
    assert final["final/top1"] == run.metrics["top1"]
    assert final["final/few"] == run.metrics["few"]
    assert part.finished is True
    assert (part.config["method"], part.config["epochs"], part.config["seed"]) == ("crt", 3, 0)


def test_what_a_stage_chose_is_told(tracker, digits, plain_run, tmp_path):
    run = longtail.train(digits, "dive", flatness="rule", out=tmp_path / "run", track=tracker, **plain_run)
    told = {key: value for _, values in Remembering.parts[0].heard for key, value in values.items()}
    ((stage, chosen),) = run.metrics["chosen"].items()
    assert chosen
    assert all(told[f"{stage}/{name}"] == value for name, value in chosen.items())


def test_an_empty_group_is_not_told(tracker, plain_run, tmp_path):
    run = longtail.train("digits", "ce", imbalance=1, out=tmp_path / "run", track=tracker, **plain_run)
    assert run.metrics["few"] is None
    _, final = Remembering.parts[0].told_last
    assert "final/many" in final
    assert "final/few" not in final


def test_tracking_changes_no_bit(tracker, digits, plain_run, tmp_path):
    plain = longtail.train(digits, "bsce", out=tmp_path / "plain", **plain_run)
    told = longtail.train(digits, "bsce", out=tmp_path / "told", track=tracker, **plain_run)
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (plain, told))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not (plain.path / tracking.TRACKERS_NAME).exists()


@pytest.mark.parametrize(("end", "raised"), [(Crash, RuntimeError), (Stop, InterruptedRunError)])
def test_a_stopped_run_goes_on_under_its_name_without_being_asked(
    end, raised, tracker, digits, plain_run, tmp_path, monkeypatch
):
    with pytest.raises(raised):
        longtail.train(digits, "bsce", out=tmp_path / "run", reporter=end(20), track=tracker, **plain_run)
    longtail.train(digits, "bsce", out=tmp_path / "run", resume=True, **plain_run)
    first, second = Remembering.parts
    assert (first.finished, second.finished) == (False, True)
    assert (first.known, second.known) == (None, first.id)
    before = [step for step, _ in first.heard]
    assert before == list(range(1, second.step + 1))
    assert [step for step, _ in second.heard] == list(range(second.step + 1, 4))


def test_a_tracker_that_comes_later_hears_what_was_before(tracker, digits, plain_run, tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "bsce", out=tmp_path / "run", reporter=Crash(20), **plain_run)
    longtail.train(digits, "bsce", out=tmp_path / "run", resume=True, track=tracker, **plain_run)
    (part,) = Remembering.parts
    assert part.step > 0
    assert [step for step, _ in part.heard] == [1, 2, 3]


def test_a_borrowed_first_stage_is_told_too(tracker, digits, plain_run, tmp_path):
    first = longtail.train(digits, "ce", out=tmp_path / "first", **plain_run)
    run = longtail.train(digits, "crt", out=tmp_path / "run", stage1=first.path, track=tracker, **plain_run)
    assert len(Remembering.parts[0].heard) == len(history(run.path))


def test_one_that_fails_is_given_up_and_the_run_is_not(tracker, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Remembering, "fails_at", 2)
    with pytest.warns(RuntimeWarning, match="json is given up, the run goes on: the line is dead"):
        run = longtail.train(digits, "bsce", out=tmp_path / "run", track=tracker, **plain_run)
    assert [step for step, _ in Remembering.parts[0].heard] == [1]
    assert len(history(run.path)) == 3


def test_one_that_was_asked_for_and_does_not_start_is_an_error(tracker, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Remembering, "starts", False)
    with pytest.raises(LongtailError, match=r"^json does not start: no answer$"):
        longtail.train(digits, "bsce", out=tmp_path / "run", track=tracker, **plain_run)
    monkeypatch.setattr(Remembering, "starts", True)  # the same command again, no --resume
    longtail.train(digits, "bsce", out=tmp_path / "run", track=tracker, **plain_run)
    assert len(Remembering.parts[0].heard) == 3


def test_one_that_knew_the_run_and_does_not_start_again_is_left_out(tracker, digits, plain_run, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "bsce", out=tmp_path / "run", reporter=Crash(20), track=tracker, **plain_run)
    monkeypatch.setattr(Remembering, "starts", False)
    with pytest.warns(RuntimeWarning, match="json does not go on, the run does: no answer"):
        longtail.train(digits, "bsce", out=tmp_path / "run", resume=True, **plain_run)
    assert json.loads((tmp_path / "run" / tracking.TRACKERS_NAME).read_text()) == {"json": "id-of-run"}


def test_unknown_and_missing_trackers_are_refused_before_anything_is_read(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"unknown tracker 'tensorbord'") as error:
        longtail.train(str(tmp_path / "nowhere"), track="tensorbord")
    assert "tensorboard" in error.value.fix
    monkeypatch.setattr(tracking, "TRACKERS", {"no_such_package": Remembering})
    with pytest.raises(UsageError, match="needs the package no_such_package") as error:
        longtail.train(str(tmp_path / "nowhere"), track="no_such_package")
    assert error.value.fix == "pip install 'longtail[no_such_package]'"


@pytest.mark.parametrize("verb", ["train", "compare", "decouple", "reproduce"])
def test_the_command_line_says_at_once_what_is_missing(verb, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    what = "deck-000-experts" if verb == "reproduce" else str(tmp_path)
    assert main([verb, what, "--track", "wandb"]) == 2
    assert "pip install 'longtail[wandb]'" in capsys.readouterr().err


def test_every_run_of_a_comparison_is_told(tracker, digits, tmp_path):
    from longtail.benchmark.execution import execute
    from longtail.benchmark.grid import Source, plan
    from longtail.benchmark.job import Machine

    cells = plan(
        digits, ["ce", "bsce"], range(1), tmp_path, options={"epochs": 1}, source=Source("digits"),
        protocol="quick", backbone=None, precision="fp32", eval_every=None,
    )  # fmt: skip
    machine = Machine("cpu", 1, "off", track=tracker)
    assert [outcome.status for outcome in execute(cells, digits, machine=machine)] == ["done", "done"]
    assert sorted(part.config["method"] for part in Remembering.parts) == ["bsce", "ce"]


# The real ones ---------------------------------------------------------------------------------------------------


def killed_and_gone_on(name, data, plain_run, to):
    """Train with a kill in the second epoch's middle and return the finished run."""
    options = {**plain_run, "eval_every": 1}
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(data, "bsce", out=to / "run", reporter=Crash(20), track=name, **options)
    return longtail.train(data, "bsce", out=to / "run", resume=True, reporter=SilentReporter(), **options)


@pytest.mark.extras
@pytest.mark.filterwarnings("default")
def test_tensorboard_reads_back_what_the_history_says(digits, plain_run, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    run = killed_and_gone_on("tensorboard", digits, plain_run, tmp_path)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    lines = history(run.path)
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2, 3]
    assert [event.value for event in losses] == pytest.approx([line["loss"] for line in lines])
    assert events.Scalars("final/top1")[0].value == pytest.approx(run.metrics["top1"])
    assert "config/text_summary" in events.Tags()["tensors"]


@pytest.mark.extras
@pytest.mark.filterwarnings("default")
def test_mlflow_keeps_one_run_with_what_the_history_says(digits, plain_run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    run = killed_and_gone_on("mlflow", digits, plain_run, tmp_path)
    client = mlflow.MlflowClient()
    (kept,) = client.search_runs([client.get_experiment_by_name("longtail").experiment_id])
    losses = client.get_metric_history(kept.info.run_id, "train/loss")
    assert [metric.step for metric in losses] == [1, 2, 3]
    assert [metric.value for metric in losses] == [line["loss"] for line in history(run.path)]
    assert (kept.info.status, kept.info.run_name) == ("FINISHED", "run")
    assert kept.data.params["method"] == "bsce"
    assert kept.data.metrics["final/top1"] == run.metrics["top1"]


@pytest.mark.extras
@pytest.mark.filterwarnings("default")
def test_wandb_keeps_the_numbers_on_this_machine_when_offline(digits, plain_run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    kept = {}
    close = tracking.WeightsAndBiases.close

    def closed(self, finished):  # a run that is closed tells nothing any more
        kept.update(dict(self._run.summary), config=dict(self._run.config))
        close(self, finished)

    monkeypatch.setattr(tracking.WeightsAndBiases, "close", closed)
    run = longtail.train(digits, "bsce", out=tmp_path / "run", track="wandb", **plain_run)
    assert kept["final/top1"] == run.metrics["top1"]
    assert kept["train/loss"] == history(run.path)[-1]["loss"]
    assert kept["config"]["method"] == "bsce"
    name = json.loads((run.path / tracking.TRACKERS_NAME).read_text())["wandb"]
    assert list((run.path / "wandb").glob(f"offline-run-*-{name}/*.wandb"))
