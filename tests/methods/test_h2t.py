"""H2T: the fusion against the official code's, what p = 0 and p = 1 are, and which stages it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from recipes import lent, recipe_of
from safetensors.torch import load_file
from torch import nn

import longtail
from longtail.benchmark import grid
from longtail.methods.h2t import FusedObjective, channel_mask, fuse
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import LinearHead, pool
from longtail.request import Task
from longtail.sampling import InstanceSampling
from longtail.training.inference import HeadView, stored_features
from longtail.training.runtime import Runtime
from longtail.types import Batch, Progress

CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "golden" / "fusion_augmentation.json").read_text())["cases"]
    if case["id"].startswith("h2t_")
}
START = Progress(0, 1)


def batch_of(images: torch.Tensor, offset: int = 0) -> Batch:
    indices = torch.arange(len(images))
    return Batch(images, (indices + offset) % 4, indices)


class Plain(nn.Module):
    """A network whose features are fixed channel-wise functions of its images, stacked for experts."""

    def __init__(self, experts: int = 0) -> None:
        super().__init__()
        self.experts = experts
        self.head = LinearHead(16, 4)

    def features(self, images):
        return torch.stack([images * (k + 1) for k in range(self.experts)]) if self.experts else images


class Recorder(nn.Module):
    """Keeps what it is called with."""

    def forward(self, network, batches, progress):
        self.seen = batches[0]
        return network(batches[0].images).sum()


@pytest.mark.parametrize("name", ["h2t_d8_p0.25", "h2t_d8_p0.5", "h2t_d8_p1.0"])
def test_fusion_before_and_after_pooling_is_that_of_the_official_code(name):
    case = CASES[name]
    balanced, instance = (torch.tensor(case["inputs"][f"F_{k}"]) for k in ("balanced", "instance"))
    mask = torch.zeros(8, dtype=torch.bool)
    mask[case["inputs"]["channel_permutation"][: int(case["hyper"]["p"] * 8)]] = True
    assert sorted(mask.nonzero().flatten().tolist()) == sorted(case["output"]["selected_channels"])
    maps = torch.where(mask[:, None, None], instance, balanced)
    assert torch.equal(maps, torch.tensor(case["output"]["fused"]))
    pooled = fuse(pool(balanced), pool(instance), mask)
    assert torch.equal(pooled, pool(maps))
    torch.testing.assert_close(pooled, torch.tensor(case["output"]["fused_after_gap"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("h2t_count")])
def test_the_number_of_channels_is_rounded_down(name):
    hyper = CASES[name]["hyper"]
    mask = channel_mask(hyper["d"], hyper["p"], (3,))
    assert mask.sum(-1).tolist() == [CASES[name]["output"]["n_replaced"]] * 3


def test_every_channel_is_chosen_equally_often():
    torch.manual_seed(0)
    share = torch.stack([channel_mask(16, 0.25) for _ in range(4000)]).float().mean(0)
    assert (share - 0.25).abs().max() < 0.035  # five standard deviations


def test_one_mask_for_the_batch_and_another_for_each_expert():
    own, other = torch.ones(6, 16), torch.full((6, 16), -1.0)
    for experts in (0, 3):
        torch.manual_seed(1)
        recorder = Recorder()
        FusedObjective(recorder, 0.5)(Plain(experts), (batch_of(own), batch_of(other, 1)), START)
        replaced = recorder.seen.images < 0
        assert replaced.shape == ((3, 6, 16) if experts else (6, 16))
        rows = replaced.view(-1, 6, 16)
        assert (rows == rows[:, :1]).all()
        assert (rows.sum(-1) == 8).all()
        assert len({tuple(row[0].tolist()) for row in rows}) == max(experts, 1)
        assert torch.equal(recorder.seen.targets, batch_of(own).targets)


def small_network(seed: int = 0):
    torch.manual_seed(seed)
    return longtail.networks.build_network("small", 4, 1)


def images(seed: int, size: int = 6) -> torch.Tensor:
    return torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def loss_of(p, network, own, other):
    objective = SupervisedObjective(longtail.losses.CrossEntropyLoss([9, 5, 3, 1]))
    return FusedObjective(objective, p)(network, (batch_of(own), batch_of(other, 1)), START)


def test_ratios_zero_and_one():
    network = small_network().eval()
    own, other = images(1), images(2)
    plain = SupervisedObjective(longtail.losses.CrossEntropyLoss([9, 5, 3, 1]))(network, (batch_of(own),), START)
    assert torch.equal(loss_of(0.0, network, own, other), plain)
    assert torch.equal(loss_of(0.01, network, own, other), plain)  # int(0.64) channels
    assert torch.equal(loss_of(1.0, network, own, other), loss_of(1.0, network, images(3), other))
    assert loss_of(0.3, network, own, other) != plain


def test_only_the_head_learns_and_each_branch_has_its_own_batch_statistics():
    network, separate = small_network().train(), small_network().train()
    own, other = images(1), images(2) + 5
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    torch.manual_seed(5)
    loss = loss_of(0.25, network, own, other)
    torch.manual_seed(5)
    fused = fuse(separate.features(own), separate.features(other), channel_mask(64, 0.25))
    expected = longtail.losses.CrossEntropyLoss([9, 5, 3, 1])(separate.head(fused), batch_of(own).targets)
    torch.testing.assert_close(loss, expected)
    assert int(norm.num_batches_tracked) == 2
    loss.backward()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert network.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "base", "options"),
    [("mislas+h2t", "mislas", {}), ("gcl+h2t", "gcl", {}), ("crt+h2t", "crt+mixup", {"crt.warm": True})],
)
def test_at_ratio_zero_it_is_the_base_to_the_bit(name, base, options, digits, plain_run, tmp_path):
    plain_run["epochs"] = 1
    ours = longtail.train(digits, name, out=tmp_path / "ours", p=0, **plain_run)
    theirs = longtail.train(digits, base, out=tmp_path / "theirs", **options, **plain_run)
    a, b = load_file(ours.path / "model.safetensors"), load_file(theirs.path / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_published_settings_are_those_of_the_released_configuration(cifar_like):
    recipe = recipe_of("crt+h2t", cifar_like, "published")
    features, classifier = recipe.stages
    assert features.mixing is not None
    assert (features.epochs, features.optimizer.lr, features.optimizer.weight_decay) == (200, 0.1, 2e-4)
    assert [round(features.schedule.factor(e), 6) for e in (4, 159, 160, 180)] == [1.0, 1.0, 0.1, 0.01]
    assert (classifier.epochs, classifier.optimizer.lr, classifier.optimizer.nesterov) == (10, 0.02, False)
    assert classifier.schedule.factor(0) == 1
    assert classifier.schedule.factor(5) == pytest.approx(0.5)
    assert classifier.new_head is None
    assert (classifier.batch_norm, classifier.cached_features, classifier.trainable) == ("train", False, "head")
    assert classifier.sampling[1] == InstanceSampling()
    # `ce+mixup --protocol published` keeps LDAM-DRW's decay: a run stands in only if it had this one.
    assert lent("crt+h2t", "ce+mixup", cifar_like, "published") == 0
    assert lent("crt+h2t", "ce+mixup", cifar_like, "common") == 1


def test_a_first_stage_of_another_schedule_is_not_shared(tmp_path, cifar_like):
    cells = grid.plan(
        cifar_like, ["crt+h2t", "ce+mixup"], [0], tmp_path, protocol="published", precision="fp32", options={}
    )
    decays = {cell.config.method: list(cell.config.budget["decay"]) for cell in cells}
    assert decays["crt+h2t"] != decays["ce+mixup"]
    assert all(cell.first_stage is None for cell in cells)
    cells = grid.plan(cifar_like, ["gcl+h2t", "gcl"], [0], tmp_path, protocol="published", precision="fp32", options={})
    leaders = {cell.config.method: (cell.first_stage, cell.shared) for cell in cells}
    first = next(cell.folder for cell in cells if cell.config.method == "gcl+h2t")
    assert leaders["gcl"] == (first, 1)  # whose features are the same, whichever comes first


def test_a_given_option_of_crt_goes_before_what_the_modifier_presets(digits):
    assert recipe_of("crt+h2t", digits, stage2_epochs=4, stage2_lr=0.05).stages[1].epochs == 4
    assert recipe_of("crt+h2t", digits, stage2_epochs=4, stage2_lr=0.05).stages[1].optimizer.lr == 0.05
    assert recipe_of("crt+h2t", digits, warm=False).stages[1].new_head is not None
    assert recipe_of("crt", digits).stages[1].new_head is not None


def test_experts_get_a_classifier_stage_with_a_mask_for_each(cifar_like, digits):
    *experts, classifier = recipe_of("ride+h2t", cifar_like, "published").stages
    plain = recipe_of("ride", cifar_like, "published")
    assert [stage.epochs for stage in experts] == [160, 40]
    assert [stage.optimizer for stage in experts] == [stage.optimizer for stage in plain.stages]
    assert [stage.schedule for stage in experts] == [stage.schedule for stage in plain.stages]  # RIDE's own drops
    assert (classifier.epochs, classifier.optimizer.lr, classifier.optimizer.nesterov) == (10, 0.02, False)
    assert (classifier.batch_norm, classifier.trainable, classifier.continues) == ("eval", "head", False)
    assert classifier.objective.objective.objective.criterion.class_weights is None
    assert lent("ride+h2t", "ride", cifar_like, "published") == 2
    assert recipe_of("ride+h2t", digits).stages[-1].cached_features


def test_experts_learn_from_stored_features_what_they_learn_from_images(digits):
    recipe = recipe_of("ride+h2t", digits)
    torch.manual_seed(0)
    network = recipe.network("small", 10, 1).eval()
    plain, some = Task.of(digits).plain_transforms(), digits.train.images[:6]
    targets = digits.train.targets[:6]
    stored = stored_features(network, some, plain, Runtime())
    assert stored.shape == (6, 3, network.num_features)
    objective, losses = recipe.stages[-1].objective, []
    for view, inputs in ((HeadView(network), stored), (network, plain(some, torch.Generator()))):
        torch.manual_seed(3)
        batch = Batch(inputs, targets, torch.arange(6))
        other = Batch(inputs.flip(0), targets.flip(0), torch.arange(6))
        losses.append(objective(view, (batch, other), START))
        torch.testing.assert_close(view(inputs), network(plain(some, torch.Generator())))
    torch.testing.assert_close(*losses)


def test_on_experts_only_the_heads_move(digits, plain_run, tmp_path):
    base = longtail.train(digits, "ride", out=tmp_path / "ride", **plain_run)
    theirs = load_file(base.path / "model.safetensors")
    heads = {}
    for p in (0.0, 0.5):
        run = longtail.train(digits, "ride+h2t", out=tmp_path / str(p), p=p, stage1=base.path, **plain_run)
        ours = load_file(run.path / "model.safetensors")
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name.startswith("backbone."))
        heads[p] = ours["head.heads.0.weight"]
        assert not torch.equal(heads[p], theirs["head.heads.0.weight"])
    assert not torch.equal(heads[0.0], heads[0.5])


@pytest.mark.parametrize("name", ["ce+h2t", "bsce+mixup+h2t", "ldam+drw+h2t", "tau-norm+h2t", "ncm+h2t"])
def test_without_a_classifier_stage_it_says_so(name, digits):
    with pytest.raises(longtail.UsageError, match="does not do") as error:
        recipe_of(name, digits)
    assert "crt+h2t" in str(error.value.fix)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_ratios_out_of_range_are_refused(p, digits):
    with pytest.raises(longtail.UsageError, match="must lie between 0 and 1"):
        recipe_of("crt+h2t", digits, p=p)
