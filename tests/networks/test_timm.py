"""The real torchvision and timm beside our networks; `.ci/run` runs these where both are installed."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import longtail
from longtail import UsageError
from longtail.augment.photo import resized_crop
from longtail.data import ImageSet, LongTailData
from longtail.networks import build_backbone, build_network, initial_weights, load_backbone, normalisation

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("default"),
]  # what timm and torchvision warn of is not ours


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))


@pytest.fixture(scope="module")
def torchvision():
    return pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))


@pytest.mark.parametrize(
    ("name", "theirs"), [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("resnext50", "resnext50_32x4d")]
)
def test_torchvision_s_weights_make_torchvision_s_features(name, theirs, torchvision, tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.get_model(theirs, weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone(name).eval()
    load_backbone(backbone, initial_weights(name, str(tmp_path / "weights.pth")))
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected, features = model(images), backbone(images)
        logits = torch.nn.functional.linear(features, model.fc.weight, model.fc.bias)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152"])
def test_the_other_sizes_have_torchvision_s_layers(name, torchvision):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
        ours = build_backbone(name).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}


def test_the_files_are_those_that_torchvision_names(torchvision):
    from longtail.networks.weights import PUBLISHED

    for name, file in PUBLISHED.items():
        theirs = torchvision.models.get_model_weights({"resnext50": "resnext50_32x4d"}.get(name, name))
        assert theirs.IMAGENET1K_V1.url.endswith(f"/{file}")


def test_the_random_crop_resizes_as_torchvision_does(torchvision):
    crop = importlib.import_module("torchvision.transforms.v2.functional").resized_crop
    images = torch.randint(256, (3, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    windows = [(3, 5, 20, 30), (0, 0, 40, 50), (10, 20, 12, 9)]
    out = resized_crop(images, *torch.tensor(windows, dtype=torch.float32).T, 16)
    for image, window, ours in zip(images, windows, out, strict=True):
        expected = crop(image, *window, [16, 16], antialias=True)
        assert (ours.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "timm:vit_tiny_patch16_224", "timm:convnext_atto", "timm:mobilenetv3_small_050"]
)
def test_timm_models_train_as_backbones(name, timm):
    torch.manual_seed(0)
    network = build_network(name, 5)
    images = torch.randn(2, 3, 96, 96)
    assert network.features(images).shape == (2, network.num_features)
    assert network.backbone.feature_map(images).ndim == 4
    network(images).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert network.head.weight.grad.abs().sum() > 0


def test_a_model_of_one_size_says_which(timm):
    with pytest.raises(UsageError, match=r"mixer_s32_224 does not take images of 96x96"):
        build_network("timm:mixer_s32_224", 5).eval()(torch.randn(1, 3, 96, 96))


def test_unknown_names_and_normalisations(timm):
    with pytest.raises(UsageError, match=r"has no model 'resnet5O'(.|\n)*did you mean timm:resnet50"):
        build_network("timm:resnet5O", 5)
    assert normalisation("timm:resnet10t", "imagenet")[0] == pytest.approx((0.485, 0.456, 0.406))
    assert normalisation("timm:vit_base_patch16_224.augreg_in21k", "imagenet")[0] == (0.5, 0.5, 0.5)


def photographs():
    targets = torch.arange(3).repeat_interleave(torch.tensor([12, 6, 4]))
    images = torch.randint(90, (22, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    images[torch.arange(22), targets] += 120
    both = ImageSet(images.to(torch.uint8), targets)
    names, statistics = ("a", "b", "c"), ((0.5,) * 3, (0.25,) * 3)
    return LongTailData("birds", both, both, names, *statistics, None, torch.arange(22), 3.0, "natural")


def test_a_frozen_timm_backbone_from_a_local_file(timm, tmp_path):
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", num_classes=7)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    plain = {"threads": 1, "compile": "off", "device": "cpu", "precision": "fp32"}
    run = longtail.train(
        photographs(),
        "ldam+drw",
        backbone="timm:resnet10t",
        weights=tmp_path / "model.safetensors",
        freeze_backbone=True,
        out=tmp_path / "run",
        **plain,
    )
    images = torch.randn(2, 3, 64, 64)
    expected = model.eval().forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(longtail.load(run.path).network.features(images), expected)
    assert run.metrics["top1"] > 60


def test_without_a_network_the_error_names_the_local_way(timm, tmp_path):
    words = ["train", "digits", "--backbone", "timm:resnet10t", "--weights", "imagenet", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment |= {"TORCH_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    code = "import sys; from longtail.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be fetched" in done.stderr
    assert "--weights PATH" in done.stderr
