"""Pretrained weights of backbones: from a file, from torchvision's collection, or from timm's hub."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from longtail.errors import LongtailError, UsageError
from longtail.networks.backbone import Backbone
from longtail.networks.experts import Branch, ExpertBackbone
from longtail.networks.network import Network
from longtail.networks.timm_backbone import TIMM, TimmBackbone, timm_normalisation, timm_weights

NO_WEIGHTS, IMAGENET = "none", "imagenet"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# torchvision's files (IMAGENET1K_V1); the name's last part begins the file's SHA-256.
PUBLISHED = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "resnext50": "resnext50_32x4d-7cdf4587.pth",
}
_HOME = "https://download.pytorch.org/models/"
_TIMEOUT_SECONDS = 30

_WRAPPERS = ("state_dict", "model", "network")
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
_HEADS = ("fc", "head", "classifier", "linear", "last_linear", "head_drop")


def initial_weights(backbone: str, weights: str) -> dict[str, Tensor] | None:
    """Return the weights that a backbone starts from.

    Args:
        backbone: Name of the backbone.
        weights: ``none``: freshly drawn ones, for which None is returned; ``imagenet``: those that torchvision, or
            timm for its backbones, publishes; else the path of a ``.safetensors`` or ``.pth`` file, or of a run folder.

    Raises:
        UsageError: There are no such weights of this backbone.
        LongtailError: They cannot be downloaded or read.
    """
    if weights == NO_WEIGHTS:
        return None
    if weights != IMAGENET:
        return read_weights(Path(weights))
    if backbone.startswith(TIMM):
        return timm_weights(backbone)
    if backbone not in PUBLISHED:
        raise UsageError(
            f"nobody publishes ImageNet weights of {backbone}",
            fix=f"name a file, --weights PATH, or use {', '.join(PUBLISHED)} or a timm:NAME backbone",
        )
    return read_weights(_fetched(PUBLISHED[backbone]))


def normalisation(backbone: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation of the pixels that pretrained weights are used to; None: the data's own."""
    if weights == NO_WEIGHTS:
        return None
    if backbone.startswith(TIMM):
        return timm_normalisation(backbone)
    return (IMAGENET_MEAN, IMAGENET_STD) if backbone in PUBLISHED else None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, whatever is wrapped around them; nothing in the file is executed.

    Raises:
        LongtailError: The file is missing, damaged, or holds no finite tensors by name.
    """
    path = file_of_weights(path)
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError:
        raise LongtailError(
            f"{path} is no file of tensors: it holds other Python objects, which are not loaded, or is damaged",
            fix="save the model's state_dict() alone, best as .safetensors",
        ) from None
    except Exception as error:  # there is no error that damaged bytes cannot raise in an unpickler
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LongtailError(f"{path} cannot be read as weights: {reason}") from error
    return _tensors(content, path)


def file_of_weights(path: Path) -> Path:
    """Return the file that a path of weights stands for: itself, or the model of a run folder.

    Raises:
        LongtailError: It is not there.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.exists():
        raise LongtailError(
            f"there is no file {path} with weights", fix="--weights takes none, imagenet or the path of a file"
        )
    return path


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, dict):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    named = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise LongtailError(f"{path} holds no weights: expected tensors by name, found {type(content).__name__}")
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise LongtailError(f"{path} is damaged: {broken[0]} has values that are not finite")
    return tensors


def load_backbone(backbone: Backbone, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a backbone, or into each expert of one; a classifier among them is left out.

    Args:
        backbone: The backbone. Shared layers and experts get the same weights.
        weights: Tensors by name, with or without prefixes such as ``module.`` or ``backbone.``.

    Raises:
        LongtailError: The weights are of another network.
    """
    targets: dict[str, list[Tensor]] = {}
    for part in _parts(backbone):
        for name, tensor in part.state_dict().items():
            targets.setdefault(name, []).append(tensor)
    given = {_bare(name, targets): value for name, value in weights.items()}
    # Files older than torch 0.4 lack these counters, which nothing reads where the momentum is fixed.
    missing = [n for n in targets if n not in given and not n.endswith("num_batches_tracked")]
    extra = [n for n in given if n not in targets and n.split(".")[0] not in _HEADS]
    other = [
        f"{n} is {tuple(given[n].shape)} there and {tuple(tensor.shape)} here"
        for n, tensors in targets.items()
        for tensor in tensors
        if n in given and given[n].shape != tensor.shape
    ]
    problems = [
        *_first(missing, "lack {}"),
        *_first(extra, "have {}, which the backbone does not"),
        *_first(other, "differ in shape: {}"),
    ]
    if problems:
        raise LongtailError(
            f"the weights do not fit the backbone: they {'; '.join(problems)}",
            fix="use the --backbone that the weights were trained with",
        )
    with torch.no_grad():
        for name, tensors in targets.items():
            for tensor in tensors:
                if name in given:
                    tensor.copy_(given[name])


def _parts(backbone: Backbone) -> list[nn.Module]:
    """Return the modules that together have a backbone's layers, each by the names of the plain backbone."""
    if isinstance(backbone, TimmBackbone):
        return [backbone.model]
    if not isinstance(backbone, ExpertBackbone):
        return [backbone]
    experts = [expert.layers if isinstance(expert, Branch) else expert for expert in backbone.experts]
    return [backbone.stem, *(part for expert in experts for part in _parts(expert))]  # type: ignore[arg-type]


def _bare(name: str, targets: Mapping[str, object]) -> str:
    while name not in targets:
        prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
        if prefix is None:
            break
        name = name.removeprefix(prefix)
    return name


def _first(names: list[str], sentence: str) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [sentence.format(f"{names[0]}{more}")]


def starting_from(
    build: Callable[[str, int, int], Network], weights: Callable[[], Mapping[str, Tensor] | None]
) -> Callable[[str, int, int], Network]:
    """Return a function that builds a network as ``build`` does and copies weights into its backbone.

    Args:
        build: Builds a network from the name of the backbone, the number of classes and of channels.
        weights: Gives the weights when they are wanted, or None for no change.
    """

    def built(backbone: str, num_classes: int, in_channels: int) -> Network:
        network = build(backbone, num_classes, in_channels)
        given = weights()
        if given is not None:
            load_backbone(network.backbone, given)
        return network

    return built


def _fetched(name: str) -> Path:
    """Return a published file in torch's own cache; download it there if it is not."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    if path.is_file():
        return path
    local = f"download {name} on another machine and give --weights PATH, or put it into {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fetch-") as part:
            with urllib.request.urlopen(_HOME + name, timeout=_TIMEOUT_SECONDS) as answer:
                shutil.copyfileobj(answer, part)
            part.seek(0)
            seen = hashlib.file_digest(part, "sha256").hexdigest()
            if not seen.startswith(name.rsplit("-", 1)[1].removesuffix(".pth")):
                raise LongtailError(f"{_HOME}{name} came with SHA-256 {seen}, not the published one", fix=local)
            part.flush()
            os.link(part.name, path)
    except FileExistsError:  # another process was faster, and its file is whole
        return path
    except (OSError, HTTPException) as error:  # URLError, time-outs and broken connections are OSErrors
        reason = getattr(error, "reason", None) or error
        raise LongtailError(f"the ImageNet weights {_HOME}{name} cannot be downloaded ({reason})", fix=local) from error
    return path
