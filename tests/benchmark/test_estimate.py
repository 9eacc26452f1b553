"""Estimates: what is measured, taken from cards, or left out. No test looks at how fast this machine is."""

from __future__ import annotations

import json

import pytest

from longtail.benchmark import cost, estimate
from longtail.benchmark.cards import factor
from longtail.benchmark.estimate import Cost, measure, seconds_left
from longtail.benchmark.execution import execute
from longtail.benchmark.grid import plan
from longtail.benchmark.job import Machine
from longtail.training.runtime import Runtime

PLAIN = Machine("cpu", 1, "off", Runtime())


def cells_of(digits, out, names, epochs=3):
    return plan(digits, names, [0], out, protocol="quick", precision="fp32", options={"epochs": epochs})


def test_every_stage_of_a_run_is_measured_and_nothing_is_left_behind(digits, tmp_path):
    cells = cells_of(digits, tmp_path, ["crt", "tau-norm", "ldam+drw"])
    for cell in cells:
        measured = measure(cell, Runtime())
        assert len(measured.stages) == len(cell.stage_epochs)
        assert all(seconds > 0 for seconds in measured.stages)
        assert (measured.images, measured.epochs) == (len(digits.train), 3)
    assert list(tmp_path.iterdir()) == []


def test_twice_the_epochs_take_about_twice_as_long_by_arithmetic():
    watch = estimate._Stopwatch(Runtime())
    watch._times, watch.steps = [0.0, 5.0, 6.0, 7.0, 9.0], 10
    assert watch.total(3) == (5.0 + 1.0 * 29, 1.0)  # the first step carries what the stage does at its beginning
    whole = Cost((30.0, 6.0), 4.0, 1000, 10)
    assert whole.seconds(2000, 10) == 76.0
    assert whole.seconds(500, 30) == 58.0


@pytest.fixture
def measured(digits, monkeypatch) -> list[str]:
    """Names of the runs that were measured; each takes 8 s an image in 4 epochs, and 2 s of evaluation."""
    names: list[str] = []
    monkeypatch.setattr(estimate, "measure", lambda cell, runtime: names.append(cell.name) or Cost((8.0,), 2.0, 1, 4))
    monkeypatch.setattr(estimate, "stand_in", lambda source: digits)
    return names


def test_what_is_done_is_left_out_and_plain_training_is_measured_once(digits, tmp_path, measured):
    cells = plan(digits, ["ce", "bsce"], [0, 1], tmp_path, protocol="quick", precision="fp32", options={"epochs": 4})
    list(execute(cells[:1], digits, machine=PLAIN))
    half = cells[1]
    half.folder.mkdir()
    (half.folder / "history.jsonl").write_text("{}\n{}\n")
    left = seconds_left(cells, PLAIN)
    whole = 8.0 * len(digits.train) + 2.0
    assert [left[cell.folder] for cell in cells] == [0.0, whole / 2, whole, whole]
    assert measured == ["ce seed 0"]


def test_methods_take_what_their_cards_say_beyond_a_first_stage_that_is_there(digits, tmp_path, measured):
    cells = cells_of(digits, tmp_path, ["ride", "ride+h2t", "tau-norm"], epochs=8)
    seconds = seconds_left(cells, PLAIN)
    left = {cell.config.method: seconds[cell.folder] for cell in cells}
    plain = 16.0 * len(digits.train) + 2.0
    ride = factor("ride")
    assert left == pytest.approx({"ce": plain, "ride": ride * plain, "ride+h2t": 0.03 * ride * plain, "tau-norm": 0.0})


def test_a_dry_run_does_not_try_compilation_on_a_cpu(digits, tmp_path, measured, monkeypatch):
    asked = []
    monkeypatch.setattr(estimate, "settled_for", lambda cell, data, machine: asked.append(machine.compile) or Runtime())
    for compile in ("auto", "on"):
        seconds_left(cells_of(digits, tmp_path, ["ce"]), Machine("cpu", 1, compile))
    assert asked == ["off", "on"]


def test_cost_beside_cross_entropy(tmp_path, monkeypatch):
    def pretended(cell, runtime):
        return Cost((3.0, 3.0) if cell.config.method == "dive" else (2.0,), 100.0, 1, 1)

    monkeypatch.setattr(cost, "measure", pretended)
    monkeypatch.setattr(cost, "settled_for", lambda *args: Runtime())
    file = tmp_path / "benchmarks" / "cost-here.json"
    assert cost.main([str(file), "dive", "bsce"]) == 0
    assert json.loads(file.read_text())["cost"] == {"ce": 1.0, "dive": 3.0, "bsce": 1.0}
    assert cost.read(tmp_path) == {"ce": 1.0, "dive": 3.0, "bsce": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["benchmarks"]
    assert cost.main([str(file)]) == 2
    assert cost.main([str(file), "nothing"]) == 2
