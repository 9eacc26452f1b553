"""Estimates: every stage is measured, what is shared or done is left out. No test looks at how fast this machine is."""

from __future__ import annotations

import json

import pytest

from longtail.benchmark import cost, estimate
from longtail.benchmark.estimate import Cost, measure, seconds_left
from longtail.benchmark.execution import Machine, execute
from longtail.benchmark.grid import plan
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
        assert measured.shared == (1 if cell.first_stage else 0)
        assert measured.images == len(digits.train)
    assert list(tmp_path.iterdir()) == []


def test_twice_the_epochs_take_about_twice_as_long_by_arithmetic():
    watch = estimate._Stopwatch(Runtime())
    watch._times, watch.steps = [0.0, 5.0, 6.0, 7.0, 9.0], 10
    assert watch.total(3) == (5.0 + 1.0 * 29, 1.0)  # the first step carries what the stage does at its beginning
    whole = Cost((30.0, 6.0), 1, 4.0, 1000)
    assert whole.seconds(2000, first_stage_is_there=False) == 76.0
    assert whole.seconds(2000, first_stage_is_there=True) == 16.0


def test_what_is_done_is_left_out_and_equal_runs_are_measured_once(digits, tmp_path, monkeypatch):
    kinds = []
    monkeypatch.setattr(estimate, "measure", lambda cell, runtime: kinds.append(cell.name) or Cost((8.0,), 0, 2.0, 1))
    monkeypatch.setattr(estimate, "stand_in", lambda source: digits)
    cells = plan(digits, ["ce", "bsce"], [0, 1], tmp_path, protocol="quick", precision="fp32", options={"epochs": 4})
    list(execute(cells[:1], digits, machine=PLAIN))
    half = cells[1]
    half.folder.mkdir()
    (half.folder / "history.jsonl").write_text("{}\n{}\n")
    left = seconds_left(cells, PLAIN)
    whole = 8.0 * len(digits.train) + 2.0
    assert [left[cell.folder] for cell in cells] == [0.0, whole / 2, whole, whole]
    assert sorted(kinds) == ["bsce seed 0", "ce seed 1"]


def test_cost_beside_cross_entropy(tmp_path, monkeypatch):
    def pretended(cell, runtime):
        return Cost((3.0, 3.0) if cell.config.method == "dive" else (2.0,), 0, 100.0, 1)

    monkeypatch.setattr(estimate, "measure", pretended)
    monkeypatch.setattr("longtail.benchmark.execution.settled_for", lambda *args: Runtime())
    file = tmp_path / "benchmarks" / "cost-here.json"
    assert cost.main([str(file), "dive", "bsce"]) == 0
    assert json.loads(file.read_text())["cost"] == {"ce": 1.0, "dive": 3.0, "bsce": 1.0}
    assert cost.read(tmp_path) == {"ce": 1.0, "dive": 3.0, "bsce": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["benchmarks"]
    assert cost.main([str(file)]) == 2
    assert cost.main([str(file), "nothing"]) == 2


@pytest.mark.parametrize(
    ("name", "told"), [("ce", "1x"), ("crt", "1x plus a few per cent"), ("ride+h2t", "+h2t: 1x plus 3 %")]
)
def test_cost_of_the_cards(name, told):
    assert cost.from_card(name).endswith(told)
