"""Frozen-feature mode: every method either trains on stored features or says why it cannot."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import longtail
from longtail import LongtailError, UsageError, methods
from longtail.cli.main import main
from longtail.methods import ce
from longtail.networks import build_network
from longtail.request import Task, build_recipe, default_folder, make_config
from longtail.training import loop
from longtail.training.loader import StageLoader
from longtail.training.world import World
from reporters import Crash

WORKS = ["ce", "focal", "cb-ce", "bsce", "la", "vs", "seql", "ldam", "cb-sampling", "crt", "lws", "tau-norm", "ncm"]
WORKS += ["ldam+drw", "ce+drs", "ce+post-hoc-la"]
REFUSED = {
    "bsce+mixup": r"its stage 'train' mixes images \(Mixup\)",
    "mislas": "mixes images",
    "ce+cmo": r"mixes images \(CMO\)",
    "ce+randaug": "augments images in its own way",
    "crt+h2t": "mixes images",
    "independent-experts": "network of several experts",
    "ride": "network of several experts",
}


def config_of(data, name, *, frozen=True, **more):
    usual = {"protocol": "quick", "seed": 0, "backbone": None, "precision": "fp32"}
    usual |= {"eval_every": None, "options": {"epochs": 5}}
    return make_config(data, name, freeze_backbone=frozen, **{**usual, **more})


def recipe_of(data, name, **more):
    config = config_of(data, name, **more)
    return build_recipe(config, Task.of(data, config))


@pytest.mark.parametrize("name", WORKS)
def test_every_stage_trains_the_head_on_stored_features(name, digits):
    before, after = (recipe_of(digits, name, frozen=frozen).stages for frozen in (False, True))
    assert [(s.name, s.epochs, s.sampling, s.continues) for s in after] == [
        (s.name, s.epochs, s.sampling, s.continues) for s in before
    ]
    assert all(s.objective is None or (s.cached_features and s.trainable == "head") for s in after)


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_images_says_so(name, digits):
    with pytest.raises(UsageError, match=REFUSED[name]) as error:
        recipe_of(digits, name)
    assert "--freeze-backbone" in str(error.value)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("name", methods.names())
def test_every_method_works_or_says_why_not(name, digits):
    try:
        recipe = recipe_of(digits, name)
    except UsageError:
        recipe = None
    assert recipe is not None or name not in WORKS
    assert recipe is None or all(stage.objective is None or stage.cached_features for stage in recipe.stages)


def test_an_objective_that_looks_behind_the_features_is_found(digits, monkeypatch):
    class Curious(ce.SupervisedObjective):
        def forward(self, network, batches, progress):
            return network.backbone.feature_map(batches[0].images).mean()

    monkeypatch.setattr(ce, "SupervisedObjective", Curious)
    with pytest.raises(UsageError, match=r"stage 'train' needs more than features \(.*backbone"):
        recipe_of(digits, "ce")


def test_a_published_protocol_has_no_frozen_backbone(digits):
    with pytest.raises(UsageError, match="nobody published numbers with a frozen backbone"):
        config_of(digits, "ce", protocol="published")


def test_the_run_folder_tells_frozen_runs_apart(digits):
    folders = {default_folder(config_of(digits, "bsce", frozen=frozen)).name for frozen in (False, True)}
    assert folders == {"digits-if50-bsce-quick-s0", "digits-if50-bsce-frozen-quick-s0"}


@pytest.fixture
def asked(monkeypatch):
    """How many images each computation of features had."""
    sizes = []
    original = loop.stored_features

    def counted(network, images, *rest):
        sizes.append(len(images))
        return original(network, images, *rest)

    monkeypatch.setattr(loop, "stored_features", counted)
    return sizes


@pytest.mark.parametrize("name", ["bsce", "ldam+drw", "crt", "ncm"])
def test_the_backbone_stays_and_is_asked_once(name, digits, plain_run, tmp_path, asked):
    run = longtail.train(digits, name, out=tmp_path / "run", freeze_backbone=True, **{**plain_run, "epochs": 5})
    assert asked == [len(digits.train)]
    torch.manual_seed(0)
    fresh = build_network("small", 10, 1)
    trained = load_file(run.path / "model.safetensors")
    for key, value in fresh.backbone.state_dict().items():
        assert torch.equal(trained[f"backbone.{key}"], value), key
    assert run.metrics["top1"] > 20  # random features of digits tell something already
    assert longtail.load(run.path).logits(digits.test.images[:3]).shape == (3, 10)
    looks = [k for k, line in enumerate(run.history, 1) if "test_top1" in line]
    assert looks == list(range(5, len(run.history) + 1, 5))


def test_training_on_stored_features_is_training_on_images(digits, plain_run, tmp_path):
    """Two epochs by hand: plain images through the network in evaluation mode, only the head learning."""
    run = longtail.train(digits, "ce", out=tmp_path / "run", freeze_backbone=True, **{**plain_run, "epochs": 2})
    config = config_of(digits, "ce", options={"epochs": 2})
    task = Task.of(digits, config)
    (stage,) = build_recipe(config, task).stages
    torch.manual_seed(0)
    network = build_network("small", 10, 1).eval()
    sgd, targets = stage.optimizer, digits.train.targets
    optimizer = torch.optim.SGD(
        network.head.parameters(), 1.0, sgd.momentum, 0, sgd.weight_decay, nesterov=sgd.nesterov
    )
    nothing = torch.zeros(len(targets), 1)
    loader = StageLoader(nothing, targets, stage, number=0, num_classes=10, seed=0, world=World())
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = sgd.lr * stage.schedule.factor(epoch)
        for chosen in loader.plan(epoch).streams[0].split(stage.batch_size):
            if len(chosen) < 2:
                continue
            images = task.plain_transforms()(digits.train.images[chosen], torch.Generator())
            loss = torch.nn.functional.cross_entropy(network(images), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trained = load_file(run.path / "model.safetensors")
    torch.testing.assert_close(trained["head.weight"], network.head.weight.data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "at"), [("ldam+drw", 50), ("crt", 90)])
def test_a_killed_run_goes_on_to_the_same_bits(name, at, digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(longtail.folder, "SAVE_SECONDS", 0.0)
    options = {**plain_run, "epochs": 5, "freeze_backbone": True}
    whole = longtail.train(digits, name, out=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, name, out=tmp_path / "killed", reporter=Crash(at), **options)
    resumed = longtail.train(digits, name, out=tmp_path / "killed", resume=True, **options)
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def weights_file(tmp_path, seed=7):
    torch.manual_seed(seed)
    network = build_network("small", 4, 1)
    save_file({k.removeprefix("backbone."): v for k, v in network.state_dict().items()}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors", network.backbone.state_dict()


def test_weights_are_where_the_run_begins_and_are_not_needed_again(digits, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(longtail.folder, "SAVE_SECONDS", 0.0)
    path, state = weights_file(tmp_path)
    options = {**plain_run, "weights": path, "freeze_backbone": True}
    with pytest.raises(RuntimeError, match="killed"):
        longtail.train(digits, "bsce", out=tmp_path / "run", reporter=Crash(30), **options)
    path.unlink()
    run = longtail.train(digits, "bsce", out=tmp_path / "run", resume=True, **options)
    trained = load_file(run.path / "model.safetensors")
    assert all(torch.equal(trained[f"backbone.{key}"], value) for key, value in state.items())
    assert run.config.weights == str(path)
    assert longtail.load(run.path).predict(digits.test.images[:5]).shape == (5,)


def test_weights_change_a_run_that_trains_the_backbone_too(digits, plain_run, tmp_path):
    path, state = weights_file(tmp_path)
    run = longtail.train(digits, "ce", out=tmp_path / "run", weights=path, **{**plain_run, "lr": 1e-9, "epochs": 1})
    trained = load_file(run.path / "model.safetensors")
    torch.testing.assert_close(trained["backbone.layers.0.weight"], state["layers.0.weight"])


def test_weights_that_do_not_fit_leave_no_run_behind(digits, plain_run, tmp_path):
    path, _ = weights_file(tmp_path)
    with pytest.raises(LongtailError, match="do not fit the backbone"):
        longtail.train(digits, "ce", out=tmp_path / "run", weights=path, backbone="resnet20", **plain_run)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_the_command_line(tmp_path, capsys):
    path, _ = weights_file(tmp_path)
    words = ["train", "digits", "--method", "crt", "--freeze-backbone", "--weights", str(path), "--epochs", "3"]
    words += ["--threads", "1", "--compile", "off", "--precision", "fp32", "--quiet", "--json"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "crt"
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert main(["train", "digits", "--method", "mislas", "--freeze-backbone", "--out", str(tmp_path / "no")]) == 2
    assert "mixes images" in capsys.readouterr().err
