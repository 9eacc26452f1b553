"""Photographs: budgets, sizes and augmentation, and runs on small made-up ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import longtail
from longtail import UsageError
from longtail.augment import CentreCrop, ColorJitter, Normalize, RandomCrop, RandomResizedCrop
from longtail.cli.main import main
from longtail.data import ImageSet, LongTailData
from longtail.request import Task, build_recipe, make_config
from longtail.training import photos
from longtail.training.budget import augmentation_for, budget_for, default_backbone, family


def photo_data(side=72, counts=(24, 9, 4), name="birds", tests=4):
    """Classes that differ in colour, with noise."""

    def images(numbers):
        targets = torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers))
        noise = torch.randint(80, (len(targets), 3, side, side), generator=torch.Generator().manual_seed(0))
        noise[torch.arange(len(targets)), targets % 3] += 120
        return ImageSet(noise.to(torch.uint8), targets)

    return LongTailData(
        name=name,
        train=images(counts),
        test=images((tests,) * len(counts)),
        class_names=tuple(f"class{k}" for k in range(len(counts))),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        dev=None,
        train_indices=torch.arange(sum(counts)),
        imbalance=counts[0] / counts[-1],
        profile="natural",
    )


def config_of(data, method="ce", **more):
    usual = {"protocol": "common", "seed": 0, "backbone": None, "precision": "fp32"}
    return make_config(data, method, **{**usual, "eval_every": None, "options": {}, **more})


def test_families():
    named = {
        "cifar10": "cifar",
        "cifar100": "cifar",
        "digits": "digits",
        "imagenet-lt": "photos",
        "cifar-birds": "photos",
    }
    assert {name: family(name) for name in named} == named


@pytest.mark.parametrize("protocol", ["common", "quick"])
def test_pretrained_weights_want_gentler_steps_and_frozen_features_many_epochs(protocol):
    scratch, pretrained, frozen = (
        budget_for("birds", protocol, start) for start in ("scratch", "pretrained", "frozen")
    )
    assert pretrained.lr < scratch.lr
    assert pretrained.epochs < scratch.epochs
    assert frozen.epochs >= pretrained.epochs
    for budget in (scratch, pretrained, frozen):
        assert budget.schedule == "cosine"
        assert budget.lr_schedule().factor(budget.epochs - 1) > 0


def test_published_budgets():
    """Kang et al.: 90 epochs, batch 512, rate 0.2 along a cosine; weight decay 5e-4, on iNaturalist 1e-4."""
    budget = budget_for("imagenet-lt", "published")
    assert (budget.epochs, budget.batch_size, budget.lr, budget.weight_decay) == (90, 512, 0.2, 5e-4)
    assert (budget.schedule, budget.warmup, budget.nesterov) == ("cosine", 0, False)
    assert budget_for("inat18", "published").weight_decay == 1e-4
    assert budget.scaled(200).epochs == 200
    with pytest.raises(UsageError, match="last block of a pretrained ResNet-152"):
        budget_for("places-lt", "published")
    with pytest.raises(UsageError, match=r"no published protocol for birds(.|\n)*common or quick"):
        budget_for("birds", "published")


def test_methods_have_their_own_published_budgets_there():
    data = photo_data(name="imagenet-lt", counts=(1200, 400, 200), side=8)
    assert config_of(data, protocol="published").budget["epochs"] == 90
    mislas = config_of(data, "mislas", protocol="published").budget
    assert (mislas["epochs"], mislas["lr"], mislas["schedule"]) == (180, 0.1, "cosine")
    ride = config_of(data, "ride", protocol="published").budget
    assert (ride["epochs"], ride["milestones"], ride["nesterov"]) == (100, (60, 80), True)
    transforms = build_recipe(config_of(data, "ride", protocol="published"), Task.of(data)).stages[0].augment.transforms
    assert "RandomRotation" not in {type(t).__name__ for t in transforms}  # its code turns CIFAR's images only
    assert config_of(photo_data(name="cifar100", side=8), "mislas", protocol="published").budget["epochs"] == 200


def test_backbones():
    names = {("imagenet-lt", 224): "resnext50", ("inat18", 224): "resnet50", ("places-lt", 256): "resnet152"}
    names |= {("birds", 224): "resnet18", ("birds", 64): "resnet18", ("birds", 48): "resnet32", ("digits", 8): "small"}
    assert {key: default_backbone(key[0], (3, key[1], key[1])) for key in names} == names


def kinds(compose):
    return [type(transform) for transform in compose.transforms]


def test_augmentation():
    mean = std = (0.5,) * 3
    large = augmentation_for("birds", mean, std, 224)
    assert kinds(large)[0] is RandomResizedCrop
    assert large.transforms[0].size == 224
    assert ColorJitter in kinds(large)
    assert ColorJitter not in kinds(augmentation_for("inat18", mean, std, 224))
    assert large.transforms[-1] == Normalize(mean, std)
    small = augmentation_for("birds", mean, std, 48)
    assert small.transforms[0] == RandomCrop(6)
    stored = torch.randint(0, 256, (2, 3, 80, 80), dtype=torch.uint8)  # larger than what the network sees
    assert small(stored, torch.Generator()).shape == (2, 3, 48, 48)


@pytest.mark.parametrize(
    ("side", "asked", "seen"), [(256, None, 224), (224, None, 224), (72, None, 72), (72, 64, 64), (72, 72, 72)]
)
def test_what_the_network_sees_of_an_image(side, asked, seen):
    data = photo_data(side=side, counts=(3, 2), tests=1)
    config = config_of(data, crop_size=asked)
    task = Task.of(data, config)
    assert task.input_shape == (3, seen, seen)
    assert task.image_shape == (3, side, side)
    recipe = build_recipe(config, task)
    generator = torch.Generator().manual_seed(0)
    assert recipe.stages[0].augment(data.train.images, generator).shape[2:] == (seen, seen)
    plain = task.plain_transforms()
    assert plain(data.train.images, generator).shape[2:] == (seen, seen)
    assert (CentreCrop in kinds(plain)) == (seen < side)
    assert Task.from_plain(json.loads(json.dumps(vars(task)))) == task


@pytest.mark.parametrize("crop", [0, 7, 73])
def test_crops_out_of_range(crop):
    with pytest.raises(UsageError, match=rf"crop_size is {crop}; it must be within 8\.\.72"):
        config_of(photo_data(), crop_size=crop)


def test_other_data_have_no_crop(digits):
    with pytest.raises(UsageError, match="crop_size is for photographs"):
        config_of(digits, crop_size=8)


@pytest.mark.parametrize(
    ("usual", "images", "expected"), [(64, 1000, 64), (64, 256, 64), (64, 255, 32), (64, 37, 8), (64, 3, 2)]
)
def test_batches_fit_small_sets(usual, images, expected):
    assert photos.batch_for(usual, images) == expected


def test_the_learning_rate_follows_the_batch():
    budget = config_of(photo_data()).budget  # 37 images
    assert budget["batch_size"] == 8
    assert budget["lr"] == pytest.approx(0.1 * 8 / 128)
    assert config_of(photo_data(), options={"batch_size": "16"}).budget["lr"] == 0.1


def test_pretrained_weights_bring_their_normalisation(tmp_path):
    data = photo_data()
    odd = LongTailData(**{**vars(data), "mean": (0.1,) * 3, "std": (0.2,) * 3})
    assert Task.of(odd, config_of(odd)).mean == (0.1,) * 3
    assert Task.of(odd, config_of(odd, weights="imagenet")).mean == (0.485, 0.456, 0.406)
    assert config_of(odd, weights="w.pth").weights.endswith("/w.pth")


RUN = {"backbone": "resnet10", "precision": "fp32", "threads": 1, "compile": "off", "device": "cpu"}


@pytest.mark.parametrize("method", ["bsce", "crt"])
def test_a_run_on_photographs(method, tmp_path):
    data = photo_data()
    run = longtail.train(data, method, out=tmp_path / "run", epochs=2, crop_size=64, **RUN)
    logits = longtail.load(run.path).logits(data.test.images)
    np.testing.assert_array_equal(logits, np.load(run.path / "test_logits.npz")["logits"])
    assert run.task.crop_size == 64


def test_a_frozen_run_on_photographs(tmp_path):
    """Of a random ResNet-10, features still tell colours apart."""
    data = photo_data()
    run = longtail.train(data, "ldam+drw", out=tmp_path / "run", freeze_backbone=True, crop_size=64, **RUN)
    assert run.metrics["top1"] > 60


def test_independent_experts_and_ride_take_the_new_backbones(tmp_path):
    data = photo_data(counts=(8, 4), tests=2)
    for method in ("independent-experts", "ride"):
        run = longtail.train(
            data, method, out=tmp_path / method, epochs=5, batch_size=4, experts=2, crop_size=64, **RUN
        )
        assert longtail.load(run.path).logits(data.test.images).shape == (4, 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of class folders of JPEGs of several sizes."""
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for label, count in {"blue": 12, "red": 6, "green": 4}.items():
        (tmp_path / "birds" / label).mkdir(parents=True)
        for k in range(count):
            pixels = generator.integers(0, 80, (70 + k, 80, 3), dtype=np.uint8)
            pixels[..., ["red", "green", "blue"].index(label)] += 120
            Image.fromarray(pixels).save(tmp_path / "birds" / label / f"{k}.jpg")
    return tmp_path / "birds"


def test_the_command_line_trains_on_a_folder_goes_on_and_predicts(folder, tmp_path, capsys):
    words = ["train", str(folder), "--method", "bsce", "--image-size", "72", "--crop-size", "64", "--epochs", "3"]
    words += [
        "--backbone",
        "resnet10",
        "--freeze-backbone",
        "--threads",
        "1",
        "--compile",
        "off",
        "--precision",
        "fp32",
    ]
    assert main([*words, "--quiet", "--json", "--out", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["dataset"] == "birds"
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    run = longtail.load(tmp_path / "run")
    assert run.task.image_shape == (3, 72, 72)
    assert run.predict(np.zeros((2, 3, 72, 72), np.uint8)).shape == (2,)
