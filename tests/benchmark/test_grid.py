"""The plan of a grid, and what is run, kept and shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from longtail import session, underway
from longtail.benchmark import execution, grid
from longtail.benchmark.job import Machine
from longtail.errors import UsageError
from longtail.training.runtime import Runtime

OPTIONS = {"epochs": 2}


@pytest.fixture
def plan(digits, tmp_path):
    def make(names, seeds=(0, 1), **keywords):
        keywords = {"protocol": "quick", "precision": "fp32", "options": OPTIONS, **keywords}
        return grid.plan(digits, names, seeds, tmp_path, **keywords)

    return make


def execute(cells, digits):
    return list(execution.execute(cells, digits, machine=Machine("cpu", 1, "off")))


def names(cells):
    return [(cell.config.method, cell.config.seed) for cell in cells]


def test_baseline_is_added_and_leads_every_seed(plan):
    assert names(plan(["bsce", "tau-norm", "bsce"])) == [
        ("ce", 0), ("bsce", 0), ("tau-norm", 0), ("ce", 1), ("bsce", 1), ("tau-norm", 1),
    ]  # fmt: skip


def test_first_stages_come_before_those_that_share_them(plan):
    cells = plan(["crt+mixup", "ce+mixup", "crt"], seeds=[5])
    order = [cell.config.method for cell in cells]
    assert order.index("ce+mixup") < order.index("crt+mixup")
    shared = {cell.config.method: cell.first_stage for cell in cells}
    assert shared["crt"] == next(cell.folder for cell in cells if cell.config.method == "ce")
    assert shared["crt+mixup"] == next(cell.folder for cell in cells if cell.config.method == "ce+mixup")
    assert shared["ce"] is None
    assert plan(["crt+mixup"])[1].first_stage is None  # no run of ce+mixup to share


def test_options_go_to_the_methods_that_have_them(plan):
    cells = plan(["ldam", "ldam+drw", "bsce"], seeds=[0], options={"epochs": 5, "max-m": "0.3", "drw.beta": "0.9"})
    given = {cell.config.method: cell.config.options for cell in cells}
    assert given == {
        "ce": {},
        "ldam": {"ldam.max_m": 0.3},
        "ldam+drw": {"ldam.max_m": 0.3, "drw.beta": 0.9},
        "bsce": {},
    }
    assert all(cell.config.budget["epochs"] == 5 for cell in cells)


@pytest.mark.parametrize(
    ("words", "keywords", "told"),
    [
        (["nothing"], {}, "unknown method"),
        (["crt+drw"], {}, "does not fit"),
        (["ce"], {"options": {"max_m": 1}}, "unknown option '--max_m'"),
        (["ldam"], {"options": {"max_m": -1}}, "max_m"),
        (["ce"], {"protocol": "long"}, "unknown protocol"),
    ],
)
def test_everything_wrong_is_found_in_the_plan(plan, words, keywords, told):
    with pytest.raises(UsageError, match=told):
        plan(words, **keywords)


def test_run_keep_resume_and_share(plan, digits, monkeypatch):
    cells = plan(["tau-norm", "crt"], seeds=[0])
    assert [outcome.status for outcome in execute(cells, digits)] == ["done"] * 3
    ce, tau, crt = cells
    assert (tau.finished, tau.begun) == (True, True)
    assert execute([tau], digits)[0].metrics["stage1"] == str(ce.folder)
    (crt.folder / "metrics.json").unlink()
    called: dict[str, object] = {}
    train = session.train

    def listens(*args, **keywords):
        called[args[1]] = (keywords["resume"], keywords["stage1"])
        return train(*args, **keywords)

    monkeypatch.setattr(session, "train", listens)
    assert [outcome.status for outcome in execute(cells, digits)] == ["kept", "kept", "done"]
    assert called["crt"] == (True, ce.folder)


def test_a_lent_state_that_is_damaged_costs_a_training_and_no_result(plan, digits):
    ce, tau = plan(["tau-norm"], seeds=[0])
    execute([ce], digits)
    state = ce.folder / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    (outcome,) = execute([tau], digits)
    assert outcome.status == "done"
    assert outcome.metrics["stage1"] is None


def test_sharing_gives_the_result_of_training_it_all(plan, digits, tmp_path):
    shared = execute(plan(["tau-norm"], seeds=[0]), digits)[-1].metrics
    (alone,) = execute([c for c in grid_alone(digits, tmp_path / "alone") if c.config.method == "tau-norm"], digits)
    assert alone.metrics["stage1"] is None
    assert alone.metrics["per_class"] == shared["per_class"]


def grid_alone(digits, out: Path):
    return grid.plan(digits, ["tau-norm"], [0], out, protocol="quick", precision="fp32", options=OPTIONS)


def test_failures_do_not_stop_the_grid(plan, digits, train_fails, monkeypatch):
    train_fails({"ce": RuntimeError("no memory")})
    ce, tau = execute(plan(["tau-norm"], seeds=[0]), digits)
    told = ce.cell.folder / "error.txt"
    assert (ce.status, ce.metrics) == ("failed", None)
    assert ce.reason == f"RuntimeError: no memory (traceback in {told})"
    assert "train_or_fail" in told.read_text()
    assert tau.status == "done"
    assert tau.metrics["stage1"] is None
    monkeypatch.undo()
    assert [outcome.status for outcome in execute([ce.cell], digits)] == ["done"]
    assert not told.exists()


def test_folder_of_another_configuration(plan, digits):
    execute(plan(["ce"], seeds=[0]), digits)
    with pytest.raises(UsageError, match="epochs 3 here, 2 there"):
        plan(["ce"], seeds=[0], options={"epochs": 3})


def test_one_measurement_serves_the_whole_grid(plan, digits, monkeypatch):
    settled = []

    def settle(*args, **keywords):
        settled.append(keywords["threads"])
        return Runtime(precision="bf16", threads=1)

    monkeypatch.setattr(underway, "settle", settle)
    cells = plan(["ce", "bsce"], seeds=[0], precision="auto")
    outcomes = list(execution.execute(cells, digits, machine=Machine("cpu")))
    assert settled == ["auto"]
    assert [outcome.metrics["precision"] for outcome in outcomes] == ["bf16", "bf16"]
