import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail.evaluation import expert_agreement
from longtail.methods.inference import AverageExperts, PickExpert


def trained(digits, plain_run, path, method="independent-experts", **options):
    return longtail.train(digits, method, out=path, **plain_run, **options)


def saved(run):
    with np.load(run.path / "test_logits.npz") as content:
        return dict(content)


@pytest.mark.parametrize(
    ("options", "plain", "plain_options"),
    [
        ({"experts": 1}, "ldam+drw+mixup", {}),
        ({"experts": 1, "base": "ce", "mixup_alpha": 0.5}, "ce+drw+mixup", {"mixup.alpha": 0.5}),
        ({"experts": 1, "base": "bsce", "mixup_alpha": 0}, "bsce", {}),
        ({"experts": 1, "base": "bsce", "mixup_alpha": 0, "joint": True}, "bsce", {}),
        ({"experts": 1, "shared_stem": True}, "ldam+drw+mixup", {}),
        ({"ablation": "w/o diversity"}, "ldam+drw", {}),
    ],
)
def test_one_expert_is_the_plain_method_bit_for_bit(options, plain, plain_options, digits, plain_run, tmp_path):
    one = trained(digits, plain_run, tmp_path / "one", **options)
    whole = trained(digits, plain_run, tmp_path / "plain", plain, **plain_options)
    ours, theirs = load_file(one.path / "model.safetensors"), load_file(whole.path / "model.safetensors")
    assert len(ours) == len(theirs)
    used = set()
    for name, value in ours.items():
        part, layer = name.split(".", 1)
        layer = layer.removeprefix("experts.0.").removeprefix("heads.0.")
        layer = layer.replace("stem.", "layers.")
        assert torch.equal(value, theirs[f"{part}.{layer}"]), name
        used.add(f"{part}.{layer}")
    assert used == set(theirs)
    np.testing.assert_array_equal(saved(one)["logits"], saved(whole)["logits"])
    assert [h["loss"] for h in one.history] == [h["loss"] for h in whole.history]


def test_experts_differ_and_the_average_answers(digits, plain_run, tmp_path):
    run = trained(digits, plain_run, tmp_path / "run")
    content = saved(run)
    assert content["expert_logits"].shape == (3, len(digits.test), 10)
    np.testing.assert_allclose(content["logits"], 30 * content["expert_logits"].mean(0), rtol=1e-5, atol=1e-5)
    report = expert_agreement(content["expert_logits"], content["targets"], content["logits"])
    assert report["average"]["top1"] == pytest.approx(run.metrics["top1"])
    assert 0.02 < report["mean_disagreement"] < 0.9
    weights = load_file(run.path / "model.safetensors")
    assert not torch.equal(weights["backbone.experts.0.layers.0.weight"], weights["backbone.experts.1.layers.0.weight"])


@pytest.mark.parametrize("shared_stem", [False, True])
def test_identical_experts_never_disagree(shared_stem, digits, plain_run, tmp_path):
    run = trained(digits, plain_run, tmp_path / "run", identical=True, shared_stem=shared_stem)
    content = saved(run)
    report = expert_agreement(content["expert_logits"], content["targets"], content["logits"])
    assert np.array(report["disagreement"]).max() == 0
    assert all(e["right_average_wrong"] == e["wrong_average_right"] == 0 for e in report["experts"])
    np.testing.assert_array_equal(content["expert_logits"][0], content["expert_logits"][2])


def test_without_test_average_the_first_expert_answers(digits, plain_run, tmp_path):
    alone = trained(digits, plain_run, tmp_path / "alone", ablation="w/o TA")
    together = trained(digits, plain_run, tmp_path / "together")
    ours, theirs = saved(alone), saved(together)
    np.testing.assert_array_equal(ours["expert_logits"], theirs["expert_logits"])
    np.testing.assert_array_equal(ours["logits"].argmax(1), theirs["expert_logits"][0].argmax(1))
    assert alone.metrics["top1"] != together.metrics["top1"]


def test_a_joint_loss_ties_the_experts(digits, plain_run, tmp_path):
    runs = [trained(digits, plain_run, tmp_path / str(joint), shared_stem=True, joint=joint) for joint in (False, True)]
    first, second = (load_file(run.path / "model.safetensors") for run in runs)
    assert not torch.equal(first["head.heads.0.weight"], second["head.heads.0.weight"])


def test_averages_of_logits_and_of_probabilities():
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(AverageExperts()(logits), logits.mean(0))
    both = AverageExperts("probabilities")(logits)
    torch.testing.assert_close(both.exp(), logits.softmax(-1).mean(0))
    torch.testing.assert_close(both.softmax(-1), both.exp())
    assert torch.equal(PickExpert(2)(logits), logits[2])


@pytest.mark.parametrize("options", [{"experts": 0}, {"mixup_alpha": -1.0}, {"base": "focal"}])
def test_wrong_options_are_refused(options, digits, plain_run, tmp_path):
    with pytest.raises(longtail.UsageError):
        trained(digits, plain_run, tmp_path / "run", **options)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("independent-experts+drw", "already rebalances in a later stage"),
        ("independent-experts+mixup", "mixes images already"),
        ("ride+drw", "already rebalances in a later stage"),
        ("independent-experts+post-hoc-la", "own inference rule"),
    ],
)
def test_modifiers_that_do_not_fit_say_so(name, reason, digits, plain_run, tmp_path):
    with pytest.raises(longtail.UsageError, match=reason):
        trained(digits, plain_run, tmp_path / "run", name)
