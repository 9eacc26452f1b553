"""Which modifiers go with which methods, both ways; building a recipe is all it takes."""

from __future__ import annotations

import pytest
from recipes import lent, recipe_of

import longtail
from longtail import data, methods
from longtail.augment import CMO, AutoAugment, CutMix, Cutout, Mixup, Normalize, RandAugment, Remix
from longtail.networks import Teacher, build_network
from longtail.request import Task, build_recipe, make_config
from longtail.sampling import InstanceSampling, PowerSampling

# Which modifiers each method takes; all others are refused.
ANY = ["drw", "drs", "cam", "mixup", "cutmix", "remix", "cmo", "ssp", "post-hoc-la", "dev"]
BALANCED = ["drw", "mixup", "cutmix", "remix", "cmo", "ssp", "dev"]  # what balances by its loss; weights are published
WEIGHTED = ["mixup", "cutmix", "remix", "cmo", "ssp", "dev"]  # what weighs or samples classes itself
CLASSIFIER = ["mixup", "cutmix", "remix", "cmo", "h2t", "ssp", "dev"]
TAKES = {
    **dict.fromkeys(["ce", "focal", "seql", "tde"], ANY),
    **dict.fromkeys(["bsce", "la", "cdt", "vs"], BALANCED),
    **dict.fromkeys(["rw", "cb-ce", "cb-focal", "cb-sampling", "sqrt-sampling", "progressive-sampling"], WEIGHTED),
    "ldam": ["drw", "drs", "cam", "mixup", "cutmix", "remix", "cmo", "ssp", "dev"],
    **dict.fromkeys(["crt", "lws"], CLASSIFIER),
    **dict.fromkeys(["tau-norm", "ncm", "dive"], WEIGHTED),
    **dict.fromkeys(["oltr", "fsa"], WEIGHTED),
    "mislas": ["h2t", "ssp", "dev"],
    "gcl": ["h2t", "ssp", "dev"],
    "m2m": ["ssp", "dev"],
    "mbj": ["ssp", "dev"],
    "independent-experts": ["ssp", "dev"],
    "ride": ["mixup", "cutmix", "remix", "cmo", "h2t", "ssp", "ea", "dev"],
    "ssd": ["mixup", "cutmix", "remix", "cmo", "ssp", "dev"],
    "bbn": ["mixup", "cutmix", "remix", "ssp", "dev"],
    "reslt": ["drs", "mixup", "cutmix", "remix", "cmo", "h2t", "ssp", "dev"],
    "sade": ["drs", "mixup", "cutmix", "remix", "cmo", "ssp", "ea", "dev"],
    "ace": ["drs", "mixup", "cutmix", "remix", "cmo", "ssp", "dev"],
    "lfme": ["mixup", "cutmix", "remix", "ssp"],
    "l2rw": ["drs", "ssp"],
    "meta-weight-net": ["ssp"],  # whose network would be drawn anew at the switch
    "da-meta": ["ssp"],
    "cb-finetune": ["ssp"],
}
IMAGE_BY_IMAGE = {"randaug", "autoaug"}  # nothing stands in their way


def test_every_method_has_its_row():
    assert set(TAKES) == set(methods.names())


@pytest.mark.parametrize("method", TAKES)
def test_a_method_takes_the_modifiers_of_its_row_and_refuses_the_others(method, digits):
    held = data.load("digits", dev_per_class=5)
    for modifier in methods.modifiers():
        name, task = f"{method}+{modifier}", held if methods.needs_dev(f"{method}+{modifier}") else digits
        if modifier in TAKES[method] or modifier in IMAGE_BY_IMAGE:
            assert recipe_of(name, task).stages
        else:
            with pytest.raises(longtail.UsageError, match=rf"\+{modifier} "):
                recipe_of(name, task)


def test_a_student_is_not_cut_in_two_where_its_teacher_is_given(digits):
    for name in ("dive+drs", "ssd+drs"):
        config = make_config(
            digits, name, protocol="quick", seed=0, backbone=None, precision="fp32", eval_every=None, options={}
        )
        with pytest.raises(longtail.UsageError, match="would begin anew at the cut"):
            build_recipe(config, Task.of(digits), Teacher(build_network("small", 10, 1)))
    with pytest.raises(longtail.UsageError, match="would begin anew at the cut"):
        recipe_of("ssd+drs", digits, row="I")


MIXINGS = {"mixup": Mixup, "cutmix": CutMix, "remix": Remix, "cmo": CMO}
ONE_STAGE = [
    "ce",
    "focal",
    "cb-ce",
    "bsce",
    "la",
    "ldam",
    "vs",
    "seql",
    "sqrt-sampling",
    "ce+drw",
    "ldam+drw",
    "ce+drs",
]
DECOUPLED = ["crt", "lws", "tau-norm", "ncm"]


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("method", [*ONE_STAGE, *DECOUPLED])
def test_mixing_goes_into_the_stages_that_train_the_backbone(method, mixing, digits):
    recipe = recipe_of(f"{method}+{mixing}", digits)
    plain = recipe_of(method, digits)
    for stage, before in zip(recipe.stages, plain.stages, strict=True):
        trains = bool(before.epochs) and before.trainable == "all"
        assert isinstance(stage.mixing, MIXINGS[mixing]) == trains
        added = (PowerSampling(0.0),) if trains and mixing == "cmo" else ()
        assert stage.sampling == (*before.sampling, *added)
    assert lent(f"{method}+{mixing}", f"ce+{mixing}", digits) == (method == "ce" or method in DECOUPLED)


TWICE = [f"ce+{a}+{b}" for a in MIXINGS for b in MIXINGS if a != b]


@pytest.mark.parametrize("name", [*TWICE, *(f"{method}+{m}" for method in ("mislas", "gcl") for m in MIXINGS)])
def test_two_mixings_are_refused_by_name(name, digits):
    with pytest.raises(longtail.UsageError, match=r"\+\w+ does not fit a recipe that mixes images already \(by \w+"):
        recipe_of(name, digits)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_mixing_goes_into_every_stage_of_experts(mixing, digits):
    for base in ("ride", "ride+h2t", "ride+ea"):
        name = base.replace("ride", f"ride+{mixing}")
        recipe, plain = recipe_of(name, digits), recipe_of(base, digits)
        for stage, before in zip(recipe.stages, plain.stages, strict=True):
            assert isinstance(stage.mixing, MIXINGS[mixing]) == (before.trainable == "all")
        assert lent(name, f"ride+{mixing}", digits) == 2


# What each modifier that adds a stage does with each method: the stages of the recipe, or None where it is refused.
ADDED = {
    ("ride", "h2t"): ("train", "deferred", "classifier"),
    ("ride", "ea"): ("train", "deferred", "routers"),
    ("ride+h2t", "ea"): ("train", "deferred", "classifier", "routers"),
    ("independent-experts", "h2t"): None,
    ("independent-experts", "ea"): None,  # LDAM's scale stands before the average
    ("crt", "h2t"): ("features", "classifier"),
    ("mislas", "h2t"): ("features", "classifier"),
    ("gcl", "h2t"): ("features", "classifier"),
    ("lws", "h2t"): ("features", "classifier"),
    ("crt+h2t", "ea"): None,
    ("crt", "ea"): None,
    ("mislas", "ea"): None,
    ("gcl", "ea"): None,
    ("tau-norm", "h2t"): None,
    ("tau-norm", "ea"): None,
    ("ce", "h2t"): None,
    ("ce", "ea"): None,
    ("ldam+drw", "h2t"): None,
    ("ldam+drw", "ea"): None,
    ("reslt", "h2t"): ("train", "classifier"),
    ("reslt", "ea"): None,  # the branches are added, not averaged
    ("sade", "h2t"): None,
    ("sade", "ea"): ("train", "routers"),
    ("ride", "drw"): None,
    ("ride", "drs"): None,
    ("ride", "post-hoc-la"): None,
    ("ride+ea", "post-hoc-la"): None,
}


@pytest.mark.parametrize(("method", "modifier"), ADDED)
def test_stages_that_modifiers_add_to_experts_and_classifiers(method, modifier, digits):
    stages = ADDED[method, modifier]
    if stages is None:
        with pytest.raises(longtail.UsageError, match=rf"\+{modifier} "):
            recipe_of(f"{method}+{modifier}", digits)
        return
    recipe = recipe_of(f"{method}+{modifier}", digits)
    assert tuple(stage.name for stage in recipe.stages) == stages
    before = recipe_of(method, digits)
    if len(before.stages) < len(stages):  # a run without the modifier can stand in for all but what it added
        assert lent(f"{method}+{modifier}", method, digits) == len(before.stages) == len(stages) - 1


@pytest.mark.parametrize("method", ["crt", "lws", "mislas", "gcl", "crt+mixup", "crt+cutmix", "crt+cmo", "lws+remix"])
def test_fusion_goes_with_every_classifier_stage(method, digits):
    features, classifier = recipe_of(f"{method}+h2t", digits).stages
    assert features.mixing is not None
    assert classifier.sampling[1] == InstanceSampling()
    assert len(classifier.sampling) == 2


@pytest.mark.parametrize("name", ["mislas+drw", "gcl+drw", "mislas+drs", "crt+drw+h2t"])
def test_deferring_does_not_go_with_a_second_stage(name, digits):
    with pytest.raises(longtail.UsageError, match="already rebalances in a later stage"):
        recipe_of(name, digits)


def test_laws_of_the_foregrounds(digits):
    for options, q in [({}, 0.0), ({"r": 0.5}, 0.5), ({"law": "paper"}, -1.0), ({"r": 2, "law": "paper"}, -2.0)]:
        assert recipe_of("ce+cmo", digits, **options).stages[0].sampling == (InstanceSampling(), PowerSampling(q))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("ce+cutmix", {"prob": 2}, "prob must lie in 0..1, got 2"),
        ("ce+cutmix", {"alpha": 0}, "alpha must be a finite number above 0"),
        ("ce+cmo", {"prob": -1}, "prob must lie in 0..1"),
        ("ce+cmo", {"law": "thumb"}, "must be one of code, paper"),
        ("ce+cmo", {"r": float("inf")}, "q must be finite"),
        ("ce+remix", {"kappa": 0.5}, "kappa must be at least 1"),
        ("ce+remix", {"alpha": 0}, "must be above 0"),
        ("gcl", {"noise_mul": -1}, "noise_mul must be a finite number >= 0"),
        ("crt", {"stage2_epochs": 0}, "a stage that trains needs at least 1"),
        ("lws", {"stage2_epochs": -1}, "a stage that trains needs at least 1"),
        ("mislas", {"stage2_epochs": 0}, "a stage that trains needs at least 1"),
        ("gcl", {"stage2_epochs": 0}, "a stage that trains needs at least 1"),
        ("crt", {"stage2_lr": 0}, "learning rate is 0.0; it must be a finite number above 0"),
        ("mislas", {"lr_factor": -1}, "must be finite and at least 0"),
        ("sade", {"tau": float("nan")}, "must be finite"),
        ("lfme", {"temperature": float("inf")}, "above 0"),
        ("independent-experts", {"mixup_alpha": float("nan")}, "and finite"),
    ],
)
def test_options_out_of_range_are_wrong_use(name, options, reason, digits):
    with pytest.raises(longtail.UsageError, match=reason):
        recipe_of(name, digits, **options)


@pytest.mark.parametrize("method", ["ce", "bsce+cmo", "mislas", "ride", "ssd", "bbn", "crt"])
def test_randaug_changes_images_where_the_backbone_is_trained_and_nothing_else(method, digits):
    recipe, plain = recipe_of(f"{method}+randaug", digits, operations=3), recipe_of(method, digits)
    for stage, before in zip(recipe.stages, plain.stages, strict=True):
        own = [step for step in stage.augment.transforms if isinstance(step, RandAugment)]
        assert own == ([RandAugment(operations=3)] if before.epochs and before.trainable == "all" else [])
        assert [step for step in stage.augment.transforms if step not in own] == list(before.augment.transforms)
        assert isinstance(stage.augment.transforms[-1], Normalize)
        assert (stage.sampling, stage.mixing, stage.views) == (before.sampling, before.mixing, before.views)


@pytest.mark.parametrize("name", ["ce+autoaug", "crt+autoaug", "ride+autoaug"])
def test_autoaug_draws_operations_and_then_cuts_a_square_out(name, digits):
    stages = recipe_of(name, digits).stages
    assert [type(t) for t in stages[0].augment.transforms[-3:]] == [AutoAugment, Cutout, Normalize]
    assert stages[0].augment.transforms[-2].size is None  # half of the side: 16 on CIFAR
    changed = [AutoAugment in map(type, stage.augment.transforms) for stage in stages]
    assert changed == [stage.trainable == "all" for stage in stages]


def test_operations_are_drawn_from_one_list(digits):
    with pytest.raises(longtail.UsageError, match=r"\+randaug does not fit"):
        recipe_of("ce+randaug+autoaug", digits)


def test_randaug_of_nothing_trains_as_without(digits, tmp_path, plain_run):
    plain = longtail.train(digits, "ce", **plain_run, out=tmp_path / "plain")
    none = longtail.train(digits, "ce+randaug", operations=0, **plain_run, out=tmp_path / "none")
    assert plain.metrics["per_class"] == none.metrics["per_class"]
    assert plain.history[-1]["loss"] == none.history[-1]["loss"]


def test_a_run_stands_in_whole_where_only_the_answer_differs(digits, plain_run, tmp_path):
    base = longtail.train(digits, "ce", out=tmp_path / "ce", **plain_run)
    short = longtail.train(digits, "ce+post-hoc-la", stage1=base.path, out=tmp_path / "short", **plain_run)
    whole = longtail.train(digits, "ce+post-hoc-la", out=tmp_path / "whole", **plain_run)
    assert [line["loss"] for line in short.history] == [line["loss"] for line in base.history]
    scores = ("top1", "many", "medium", "few", "ece", "stage1")
    assert {s: short.metrics[s] for s in scores[:-1]} == {s: whole.metrics[s] for s in scores[:-1]}
    assert short.metrics["stage1"] == str(base.path)
    assert short.metrics["top1"] != base.metrics["top1"]


@pytest.mark.parametrize(("name", "first"), [("ce+mixup+post-hoc-la", "ce+mixup"), ("ce+post-hoc-la", "ce")])
def test_what_stands_in_for_a_method_with_another_answer(name, first, digits):
    assert lent(name, first, digits) == 1
