"""Which stages recipes share: strictly by content, and what lending them saves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

import longtail
from longtail import folder
from longtail.benchmark import grid
from longtail.benchmark.execution import execute
from longtail.benchmark.job import Machine
from longtail.errors import LongtailError
from longtail.losses import CrossEntropyLoss, LDAMLoss
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import build_network
from longtail.training.sharing import difference, same_network, shared_stages, stage_difference
from methods.recipes import lent, recipe_of
from reporters import Crash


class Held(nn.Module):
    """Holds what no buffer holds."""

    def __init__(self, number, **more):
        super().__init__()
        self.number = number
        self._hidden = more
        self.register_buffer("counts", torch.ones(3), persistent=False)


@dataclass(frozen=True)
class Pair:
    one: object
    other: object = None


def counting(by):
    def count(value, step=by):
        return value + step

    return count


def same_code(extra):
    return lambda value: value + extra


def drawn():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), Held(1))


ALIKE = [
    lambda: Held(1.0, a=[1, (2, "x")]),
    lambda: Pair(torch.arange(3), {"k": (1, 2)}),
    lambda: partial(counting, by=Held(2)),
    lambda: same_code(3),
    drawn,
    lambda: SupervisedObjective(LDAMLoss([5, 3, 1])),
]


@pytest.mark.parametrize("make", ALIKE)
def test_what_is_made_twice_alike_is_no_difference(make):
    assert difference(make(), make()) == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "where"),
    [
        (Held(1.0), Held(2.0), "number"),
        (Held(1.0, a=1), Held(1.0, a=2), "_hidden.a"),
        (Held(1), Held(1.0), "number"),
        (Held(1.0, a=1), Held(1.0, b=1), "_hidden"),
        (Pair(1), Pair(1, 2), "other"),
        (Pair(torch.ones(2)), Pair(torch.ones(2, dtype=torch.float64)), "one"),
        (Pair(torch.ones(2)), Pair(torch.ones(3)), "one"),
        (Pair((1, 2)), Pair((1, 2, 3)), "one"),
        (Pair((1, Pair(3))), Pair((1, Pair(4))), "one.1.one"),
        (Pair({"a": 1}), Pair({"b": 1}), "one"),
        (Pair(same_code(1)), Pair(same_code(2)), "one"),
        (Pair(counting(1)), Pair(counting(2)), "one"),
        (Pair(lambda: 1), Pair(lambda: 1), "one"),  # not worth a look at what code does
        (Pair(partial(int, base=2)), Pair(partial(int, base=8)), "one.keywords.base"),
        (Pair(float("nan")), Pair(float("nan")), "one"),
        (SupervisedObjective(LDAMLoss([5, 3, 1])), SupervisedObjective(LDAMLoss([5, 3, 2])), "criterion"),
        (SupervisedObjective(LDAMLoss([5, 3, 1])), SupervisedObjective(CrossEntropyLoss([5, 3, 1])), "criterion"),
    ],
)
def test_a_difference_is_found_and_named(ours, theirs, where):
    assert difference(ours, theirs).startswith(where)
    assert difference(theirs, ours).startswith(where)
    assert difference(ours, ours) == ""


def test_a_buffer_that_is_not_saved_counts():
    ours, theirs = Held(1), Held(1)
    theirs.counts[1] = 7
    assert difference(ours, theirs) == "counts"


def test_stages_are_compared_by_all_but_their_names(digits):
    stage = recipe_of("ce", digits).stages[0]
    assert stage_difference(stage, replace(stage, name="another")) == ""
    assert stage_difference(stage, replace(stage, batch_size=7)) == "batch_size"
    assert stage_difference(stage, replace(stage, schedule=replace(stage.schedule, warmup=0))) == "schedule.warmup"


def test_networks_are_compared_by_what_is_built(digits):
    recipe = recipe_of("ce", digits)
    mapped = replace(recipe, network=partial(build_network, mapped=True))
    reduced = replace(recipe, network=partial(build_network, reduced=True))
    assert same_network(recipe, mapped, "resnet32")
    assert not same_network(recipe, reduced, "resnet32")
    assert shared_stages(recipe, mapped, "resnet32") == 1
    assert shared_stages(recipe, reduced, "resnet32") == 0


def test_methods_lend_as_far_as_they_are_alike(digits):
    assert lent("ce+drs", "ce+drw", digits) == 1
    assert lent("ldam+drw", "ce+drw", digits) == 0
    assert lent("ride+ea", "ride+h2t", digits) == 2
    assert lent("crt", "crt", digits) == 2


def test_a_deferred_run_begins_where_another_had_got_to(digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    options = {**plain_run, "epochs": 10}
    with pytest.raises(RuntimeError, match="killed"):  # in its second stage: unfinished, but far enough
        longtail.train(digits, "ce+drw", out=tmp_path / "drw", reporter=Crash(105), **options)
    whole = longtail.train(digits, "ce+drs", out=tmp_path / "whole", **options)
    short = longtail.train(digits, "ce+drs", out=tmp_path / "short", stage1=tmp_path / "drw", **options)
    assert [line["loss"] for line in short.history] == [line["loss"] for line in whole.history]
    assert [line["stage"] for line in short.history] == [line["stage"] for line in whole.history]
    assert short.metrics["per_class"] == whole.metrics["per_class"]
    (tmp_path / "drw" / "stage-1.pt").unlink()
    with pytest.raises(longtail.UsageError, match="kept no state of the end of its stage") as error:
        longtail.train(digits, "ce+drs", out=tmp_path / "none", stage1=tmp_path / "drw", **options)
    assert error.value.fix == f"longtail train --resume --out {tmp_path / 'drw'}"


def test_a_kept_state_stays_also_where_links_are_not_known(digits, plain_run, tmp_path, monkeypatch):
    def refused(*names):
        raise OSError("no links here")

    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    linked = longtail.train(digits, "crt", out=tmp_path / "linked", **plain_run)
    monkeypatch.setattr("os.link", refused)
    copied = longtail.train(digits, "crt", out=tmp_path / "copied", **plain_run)
    states = [folder.RunFolder(run.path).lent_state(1) for run in (linked, copied)]
    assert [state["position"]["stage"] for state in states] == [1, 1]
    assert difference(states[0]["network"], states[1]["network"]) == ""
    assert folder.RunFolder(linked.path).lent_state(2) is not None  # the end
    assert folder.RunFolder(linked.path).lent_state(3) is None
    (copied.path / "stage-1.pt").write_bytes(b"nothing")
    with pytest.raises(LongtailError, match=r"stage-1\.pt cannot be read"):
        longtail.train(digits, "lws", out=tmp_path / "lws", stage1=copied.path, **plain_run)


def test_looks_at_the_test_set_are_lent_where_the_borrower_would_have_had_the_same(digits, plain_run, tmp_path):
    plain_run["eval_every"] = 2
    base = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    assert ["test_top1" in line for line in base.history] == [False, True, True]  # the last always
    whole = longtail.train(digits, "crt", out=tmp_path / "whole", **plain_run)
    short = longtail.train(digits, "crt", out=tmp_path / "short", stage1=base.path, **plain_run)
    assert [line.get("test_top1") for line in short.history] == [line.get("test_top1") for line in whole.history]
    assert short.metrics["best_test_epoch_top1"] == whole.metrics["best_test_epoch_top1"]


def test_looks_under_another_inference_rule_are_not_lent(digits, plain_run, tmp_path):
    adjusted = longtail.train(digits, "ce+post-hoc-la", out=tmp_path / "adjusted", **plain_run)
    plain = longtail.train(digits, "ce", out=tmp_path / "plain", stage1=adjusted.path, **plain_run)
    assert [line["loss"] for line in plain.history] == [line["loss"] for line in adjusted.history]
    assert not any("test_top1" in line for line in plain.history)
    assert adjusted.metrics["best_test_epoch_top1"] > plain.metrics["top1"]  # else the next line would say nothing
    assert plain.metrics["best_test_epoch_top1"] == plain.metrics["top1"]


def test_other_data_are_refused_by_name(digits, plain_run, tmp_path):
    base = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    with pytest.raises(longtail.UsageError, match=r"was trained otherwise: imbalance 10\.0 here, 50\.0 there"):
        longtail.train("digits", "crt", imbalance=10, out=tmp_path / "run", stage1=base.path, **plain_run)


def test_a_grid_takes_stages_over_where_they_were_kept_and_trains_them_where_not(digits, tmp_path):
    machine = Machine("cpu", 1, "off")
    cells = grid.plan(
        digits, ["ce+drw", "ce+drs", "ce+cam"], [0], tmp_path, protocol="quick", precision="fp32", options={"epochs": 5}
    )
    _, drw, drs, cam = cells
    done = [outcome.metrics for outcome in execute([drw, drs], digits, machine=machine)]
    assert [metrics["stage1"] for metrics in done] == [None, str(drw.folder)]
    (drw.folder / "stage-1.pt").unlink()  # as a run of an earlier version left it
    (alone,) = execute([cam], digits, machine=machine)
    assert (alone.status, alone.metrics["stage1"]) == ("done", None)


def test_in_a_grid_each_run_comes_after_the_one_that_lends_it_most(digits, tmp_path):
    names = ["ce+post-hoc-la", "gcl+h2t", "ce+drs", "lws", "ride+ea", "gcl", "ce+drw", "ride", "crt", "bsce"]
    cells = grid.plan(digits, names, [0, 1], tmp_path, protocol="quick", precision="fp32", options={"epochs": 5})
    method = {cell.folder: cell.config.method for cell in cells}
    done = set()
    for cell in cells:
        assert cell.first_stage is None or cell.first_stage in done
        done.add(cell.folder)
    seed0 = [cell for cell in cells if cell.config.seed == 0]
    assert {c.config.method: (method[c.first_stage], c.shared) for c in seed0 if c.first_stage} == {
        "crt": ("ce", 1),
        "ce+post-hoc-la": ("ce", 1),
        "lws": ("ce", 1),
        "gcl": ("gcl+h2t", 1),
        "ce+drw": ("ce+drs", 1),
        "ride+ea": ("ride", 2),
    }
