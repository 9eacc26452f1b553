"""What the measurement of costs is made on."""

from __future__ import annotations

from longtail.benchmark import cost
from longtail.benchmark.estimate import Cost
from longtail.training.runtime import Runtime


def test_what_learns_from_a_development_set_is_measured_with_one_beside_a_baseline_that_has_it(tmp_path, monkeypatch):
    held_out = {}

    def pretended(cell, runtime):
        held_out.setdefault(cell.config.method, set()).add(cell.config.dev_per_class)
        return Cost((2.0,), 100.0, 1, 1)

    monkeypatch.setattr(cost, "measure", pretended)
    monkeypatch.setattr(cost, "settled_for", lambda *args: Runtime())
    cost.ratios(["ce+dev", "da-meta+ssp", "bsce"], tmp_path)
    assert held_out == {"ce": {0, 10}, "ce+dev": {10}, "da-meta+ssp": {10}, "bsce": {0}}
