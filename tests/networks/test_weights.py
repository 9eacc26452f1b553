"""Pretrained weights: what may be read, what fits, and what is said of everything else."""

import hashlib
import sys
import types
import zipfile
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from longtail.errors import LongtailError, UsageError
from longtail.networks import (
    PHOTO_BACKBONES,
    ResNet,
    TimmBackbone,
    build_backbone,
    build_expert_network,
    build_network,
    initial_weights,
    load_backbone,
    normalisation,
    read_weights,
    starting_from,
    weights,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A backbone of the photographs' kind that is fast to make."""
    monkeypatch.setitem(PHOTO_BACKBONES, "tiny", partial(ResNet, (1, 1, 1, 1)))


def drawn(seed=1):
    torch.manual_seed(seed)
    return build_backbone("tiny")


def torchvision_file(seed=1, classes=1000):
    """What torchvision would publish of such a network."""
    return {**drawn(seed).state_dict(), "fc.weight": torch.zeros(classes, 512), "fc.bias": torch.zeros(classes)}


def same(backbone, state):
    ours = backbone.state_dict()
    return all(torch.equal(ours[name], value) for name, value in state.items() if name in ours)


WRAPPINGS = {
    "plain": lambda state: state,
    "data-parallel": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
    "compiled": lambda state: {"model": {f"_orig_mod.model.{k}": v for k, v in state.items()}},
    "half": lambda state: {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()},
    "no-counters": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_as_people_have_them(wrap, suffix, tmp_path):
    content = wrap(torchvision_file())
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(content, path)
    else:
        save_file(next((v for v in content.values() if isinstance(v, dict)), content), path)
    backbone = drawn(seed=2)
    load_backbone(backbone, read_weights(path))
    expected = {name: value for name, value in drawn().state_dict().items() if "num_batches" not in name}
    if wrap is WRAPPINGS["half"]:
        expected = {name: value.half().float() for name, value in expected.items()}
    assert same(backbone, expected)


def test_a_run_s_own_model_is_a_file_of_weights(tmp_path):
    network = build_network("tiny", 4)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        backbone = drawn(seed=2)
        load_backbone(backbone, read_weights(place))
        assert same(backbone, network.backbone.state_dict())


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path):
    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(LongtailError, match="holds other Python objects, which are not loaded"):
        read_weights(tmp_path / "hostile.pth")


BROKEN = {
    "empty.pth": b"",
    "text.pth": b"this is a page that says 404\n" * 20,
    "cut.pth": b"PK\x03\x04" + bytes(50),
    "empty.safetensors": b"",
    "long-header.safetensors": b"\xff" * 64,
    "text.safetensors": b"<html>not found</html>" * 10,
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_files_give_an_error_in_two_lines(name, tmp_path):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(LongtailError, match=name) as error:
        read_weights(tmp_path / name)
    assert len(str(error.value).splitlines()) <= 2


def test_a_truncated_file_and_an_archive_of_something_else(tmp_path):
    torch.save(torchvision_file(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    for name in ("half.pth", "other.pth"):
        with pytest.raises(LongtailError, match=name):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3), {"state_dict": {}}, {3: torch.zeros(1)}])
def test_files_without_named_tensors(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(LongtailError, match="holds no weights: expected tensors by name"):
        read_weights(tmp_path / "weights.pth")


def test_what_is_not_finite_is_refused(tmp_path):
    state = torchvision_file()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(LongtailError, match=r"layer2\.0\.conv1\.weight has values that are not finite"):
        read_weights(tmp_path / "weights.pth")


def test_a_missing_file_names_the_choices(tmp_path):
    with pytest.raises(LongtailError, match=r"no file .*nowhere\.pth(.|\n)*none, imagenet or the path"):
        initial_weights("tiny", str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("small", r"lack conv1\.weight and \d+ more; have layers\.0\.weight and"),
        ("resnet18", r"have layer1\.1\.conv1\.weight and \d+ more, which the backbone does not"),
        ("grey", r"differ in shape: conv1\.weight is \(64, 1, 7, 7\) there and \(64, 3, 7, 7\) here"),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(other, message):
    state = (build_backbone("tiny", 1) if other == "grey" else build_backbone(other)).state_dict()
    backbone = drawn()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(LongtailError, match=message):
        load_backbone(backbone, state)
    assert same(backbone, before)


@pytest.mark.parametrize("shared", [False, True])
def test_every_expert_starts_from_the_weights(shared):
    state = torchvision_file()
    build = starting_from(partial(build_expert_network, experts=2, shared_stem=shared), lambda: state)
    network = build("tiny", 5, 3).eval()
    plain = drawn().eval()
    images = torch.randn(2, 3, 64, 64)
    for features in network.features(images):
        torch.testing.assert_close(features, plain(images))
    assert not torch.equal(network.head.heads[0].weight, network.head.heads[1].weight)


def test_the_head_is_drawn_as_without_weights():
    build = starting_from(build_network, torchvision_file)
    torch.manual_seed(3)
    plain = build_network("tiny", 5)
    torch.manual_seed(3)
    network = build("tiny", 5, 3)
    assert torch.equal(plain.head.weight, network.head.weight)


def test_none_is_none():
    assert initial_weights("resnet18", "none") is None
    assert normalisation("resnet18", "none") is None
    assert normalisation("resnet32", "some.pth") is None
    assert normalisation("resnet18", "imagenet")[0] == (0.485, 0.456, 0.406)


def test_networks_that_nobody_publishes():
    with pytest.raises(UsageError, match=r"nobody publishes ImageNet weights of resnet32(.|\n)*--weights PATH"):
        initial_weights("resnet32", "imagenet")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A collection on the local disk in the place of torchvision's, and an empty cache."""
    home = tmp_path / "hub"
    home.mkdir()
    state = torchvision_file()
    torch.save(state, home / "file.pth")
    content = (home / "file.pth").read_bytes()
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (home / "file.pth").rename(home / name)
    monkeypatch.setitem(weights.PUBLISHED, "tiny", name)
    monkeypatch.setattr(weights, "_HOME", home.as_uri() + "/")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    return home / name, tmp_path / "cache" / "checkpoints" / name


def test_published_weights_are_fetched_once(hub):
    published, cached = hub
    backbone = drawn(seed=2)
    load_backbone(backbone, initial_weights("tiny", "imagenet"))
    assert same(backbone, drawn().state_dict())
    published.unlink()
    assert initial_weights("tiny", "imagenet")
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


def test_without_a_network_the_error_names_the_local_way(hub):
    published, cached = hub
    published.unlink()
    with pytest.raises(LongtailError) as error:
        initial_weights("tiny", "imagenet")
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "cannot be downloaded" in lines[0]
    assert "--weights PATH" in lines[1]
    assert str(cached.parent) in lines[1]
    assert list(cached.parent.iterdir()) == []


def test_a_download_that_is_not_the_published_file_is_thrown_away(hub):
    published, cached = hub
    published.write_bytes(b"a page of the hotel's network")
    with pytest.raises(LongtailError, match="not the published one"):
        initial_weights("tiny", "imagenet")
    assert list(cached.parent.iterdir()) == []


# timm, played by a module of three functions: the real one is tested where it is installed (test_timm.py).


class Transformer(nn.Module):
    def __init__(self, in_chans, dynamic_img_size):
        super().__init__()
        assert dynamic_img_size
        self.num_features = 6
        self.num_prefix_tokens = 1
        self.patch = nn.Conv2d(in_chans, 6, 4, 4)

    def forward_features(self, images):
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)

    def forward(self, images):
        return self.forward_features(images)[:, 0]


class Convolution(nn.Module):
    def __init__(self, in_chans):
        super().__init__()
        self.num_features, self.head_hidden_size = 4, 6
        self.layer = nn.Conv2d(in_chans, 6, 3)

    def forward_features(self, images):
        return self.layer(images)

    def forward(self, images):
        return self.layer(images).mean((2, 3))


@pytest.fixture
def fake_timm(monkeypatch):
    module = types.ModuleType("timm")
    module.__version__ = "0"
    module.models = {"transformer": Transformer, "convolution": Convolution}
    module.offline = False

    def create_model(name, *, num_classes, pretrained=False, in_chans=3, **options):
        assert num_classes == 0
        model = module.models[name](in_chans, **options)
        if pretrained and module.offline:
            raise ConnectionError("cannot reach the hub\nafter five tries")
        return model

    module.create_model = create_model
    module.is_model = lambda name: name in module.models
    module.list_models = lambda: list(module.models)
    module.get_pretrained_cfg = lambda name: (
        types.SimpleNamespace(mean=(0.5,) * 3, std=(0.25,) * 3) if name == "transformer" else None
    )
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


@pytest.mark.parametrize("name", ["transformer", "convolution"])
@pytest.mark.parametrize("channels", [1, 3])
def test_timm_models_are_backbones(name, channels, fake_timm):
    network = build_network(f"timm:{name}", 3, channels)
    images = torch.randn(2, channels, 12, 12)
    assert network.features(images).shape == (2, 6)
    assert network(images).shape == (2, 3)
    assert network.backbone.feature_map(images).shape[:2] == (2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.features(images).dtype == torch.float32


def test_a_transformer_s_patches_are_a_map(fake_timm):
    backbone = TimmBackbone("timm:transformer")
    images = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(backbone.feature_map(images), backbone.model.patch(images))
    with pytest.raises(UsageError, match="timm:transformer makes no square feature map"):
        backbone.feature_map(torch.randn(2, 3, 12, 16))


def test_timm_weights_from_a_file_and_from_the_hub(fake_timm, tmp_path):
    state = initial_weights("timm:transformer", "imagenet")
    backbone = TimmBackbone("timm:transformer")
    load_backbone(backbone, state)
    assert torch.equal(backbone.model.patch.weight, state["patch.weight"])
    save_file({**state, "head.weight": torch.zeros(5, 6)}, tmp_path / "model.safetensors")
    again = TimmBackbone("timm:transformer")
    load_backbone(again, initial_weights("timm:transformer", str(tmp_path)))
    assert torch.equal(again.model.patch.weight, state["patch.weight"])
    assert normalisation("timm:transformer", "imagenet") == ((0.5,) * 3, (0.25,) * 3)
    assert normalisation("timm:convolution", "some.pth") is None


def test_timm_without_a_network_names_the_local_way(fake_timm):
    fake_timm.offline = True
    with pytest.raises(LongtailError) as error:
        initial_weights("timm:transformer", "imagenet")
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "cannot reach the hub" in lines[0]
    assert "--weights PATH" in lines[1]


def test_timm_s_refusals(fake_timm):
    with pytest.raises(UsageError, match=r"no model 'transformers'(.|\n)*did you mean timm:transformer"):
        build_network("timm:transformers", 3)
    with pytest.raises(UsageError, match="no narrower form"):
        build_network("timm:transformer", 3, reduced=True)
    with pytest.raises(UsageError, match="cannot share layers between experts"):
        build_expert_network("timm:transformer", 3, shared_stem=True)
    with pytest.raises(UsageError, match="publishes no weights of convolution"):
        initial_weights("timm:convolution", "imagenet")
    assert build_expert_network("timm:transformer", 3, experts=2)(torch.randn(2, 3, 12, 12)).shape == (2, 2, 3)


@pytest.mark.parametrize("error", [ImportError("No module named 'timm'"), RuntimeError("operator nms does not exist")])
def test_without_timm_the_error_says_what_to_install(error, monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "timm":
                raise error

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(UsageError, match=r"do not import: (.|\n)*pip install 'longtail\[timm\]'"):
        build_network("timm:resnet50", 3)
