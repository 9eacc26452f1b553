import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail.benchmark import decoupling
from longtail.benchmark.execution import execute
from longtail.benchmark.job import Machine

SHORT = {"epochs": 2, "stage2_epochs": 1}


def planned(digits, out, seeds=(0,), **options):
    return decoupling.plan(digits, seeds, out, options={**SHORT, **options}, protocol="quick", precision="fp32")


def test_nine_classifiers_on_three_trained_networks(digits, tmp_path):
    cells = planned(digits, tmp_path, seeds=(0, 1))
    assert len(cells) == 2 * 12
    folders = {cell.folder for cell in cells}
    assert len(folders) == len(cells)
    for cell in cells:
        if cell.config.method == "crt":
            leader = next(other for other in cells if other.folder == cell.first_stage)
            manner = cell.config.options["crt.features"]
            assert leader.config.method == {"ce": "ce", "rw": "rw", "rs": "cb-sampling"}[manner]
            assert leader.config.seed == cell.config.seed
            assert cells.index(leader) < cells.index(cell)
        else:
            assert cell.first_stage is None


def test_the_grid_runs_and_is_tabulated(digits, tmp_path):
    machine = Machine("cpu", 1, "off")
    outcomes = list(execute(planned(digits, tmp_path), digits, machine=machine))
    assert {outcome.status for outcome in outcomes} == {"done"}
    study = decoupling.tabulate(outcomes)
    assert all(error is not None for error in (*study.errors.values(), *study.whole.values()))
    by_method = {o.cell.folder.name: o for o in outcomes}
    assert len(by_method) == 12
    rs_on_ce = next(
        o for o in outcomes if o.cell.config.options.items() >= {"crt.features": "ce", "crt.classifier": "rs"}.items()
    )
    assert study.errors["ce", "rs"].mean == pytest.approx(100 - rs_on_ce.metrics["top1"])
    plain = longtail.train(
        digits, "crt", out=tmp_path / "crt", protocol="quick", precision="fp32", threads=1, compile="off", **SHORT
    )
    ours, theirs = (load_file(path / "model.safetensors") for path in (rs_on_ce.cell.folder, plain.path))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    kept = list(execute(planned(digits, tmp_path), digits, machine=machine))
    assert {outcome.status for outcome in kept} == {"kept"}


def test_unfinished_pairs_are_left_open(digits, tmp_path):
    study = decoupling.tabulate([])
    assert set(study.errors.values()) == {None}
    assert study.plain()["whole"] == {"ce": None, "rw": None, "rs": None}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"features": "ce"}, "the grid goes through"),
        ({"crt.classifier": "rs"}, "the grid goes through"),
        ({"power": 0.5}, "without its like cells"),
        ({"crt.warm": True}, "without its like cells"),
        ({"tau": 2}, "unknown option '--tau'"),
    ],
)
def test_options_of_no_run_are_refused(options, reason, digits, tmp_path):
    with pytest.raises(longtail.UsageError, match=reason):
        planned(digits, tmp_path, **options)
