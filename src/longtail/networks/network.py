"""The network that methods train: a backbone that makes features and a head that makes logits of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from longtail.errors import UsageError, unknown_name
from longtail.networks.backbone import Backbone
from longtail.networks.cifar_resnet import CifarResNet
from longtail.networks.features import FEATURES, FeatureBackbone
from longtail.networks.heads import LinearHead
from longtail.networks.resnet import ResNet
from longtail.networks.small import SmallNet
from longtail.networks.timm_backbone import TIMM, TimmBackbone

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet20": partial(CifarResNet, 3),
    "resnet32": partial(CifarResNet, 5),
    "resnet44": partial(CifarResNet, 7),
    "small": SmallNet,
}
"""Backbones for small images by name: images' channels -> backbone; ``reduced=True`` makes the narrower one of RIDE's
experts. ``resnet20``, ``resnet32`` and ``resnet44`` are CIFAR's, ``small`` is for digits."""

PHOTO_BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet10": partial(ResNet, (1, 1, 1, 1)),
    "resnet18": partial(ResNet, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, (3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, (3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(ResNet, (3, 8, 36, 3), bottleneck=True),
    "resnext50": partial(ResNet, (3, 4, 6, 3), bottleneck=True, groups=32, group_width=4),
}
"""Backbones for photographs likewise; ``resnext50`` is torchvision's ``resnext50_32x4d``."""


class Network(nn.Module):
    """A backbone and a head: images (B, C, H, W) -> features (B, d) -> logits (B, num_classes).

    Args:
        backbone: Maps images to features.
        head: Maps features to logits; may be exchanged between stages (``network.head = ...``).
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @property
    def num_features(self) -> int:
        """Width d of the features."""
        return self.backbone.num_features

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features, (B, d), float32, of images (B, C, H, W)."""
        out: Tensor = self.backbone(images)
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, num_classes), float32, of images (B, C, H, W)."""
        out: Tensor = self.head(self.backbone(images))
        return out


def build_network(
    backbone: str,
    num_classes: int,
    in_channels: int = 3,
    head: Callable[[int, int], nn.Module] = LinearHead,
    *,
    reduced: bool = False,
    mapped: bool = False,
) -> Network:
    """Build a network with freshly drawn weights (from torch's global generator).

    Args:
        backbone: A name of `BACKBONES` or `PHOTO_BACKBONES`, or ``timm:NAME``; or ``features:D``, which is no network:
            the images are features already, D of them.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        head: Makes the head from the number of features and the number of classes.
        reduced: Take three quarters of the channels behind the first layers, as RIDE's experts do.
        mapped: The method works on positions of the last feature map, of which the features must be the mean.

    Raises:
        UsageError: If there is no backbone of that name, or its features are not what the method needs.
    """
    body = build_backbone(backbone, in_channels, reduced=reduced)
    if mapped and not body.pools_its_map:
        raise UsageError(
            f"the features of {backbone} are not the mean of its last feature map, on which the method works",
            fix="use a backbone of this library, such as resnet50 or resnet32",
        )
    return Network(body, head(body.num_features, num_classes))


def build_backbone(name: str, in_channels: int = 3, *, reduced: bool = False) -> Backbone:
    """Build a backbone with freshly drawn weights; see `build_network` for arguments and errors."""
    if name.startswith(FEATURES):
        return FeatureBackbone(int(name.removeprefix(FEATURES)))
    if name.startswith(TIMM):
        if reduced:
            raise UsageError(f"{name} has no narrower form", fix="use --reduced false, or a backbone of the core")
        return TimmBackbone(name, in_channels)
    check_backbone(name)
    table = PHOTO_BACKBONES if name in PHOTO_BACKBONES else BACKBONES
    return table[name](in_channels, reduced=True) if reduced else table[name](in_channels)


def check_backbone(name: str) -> None:
    """Refuse the name of a backbone that there is none of; whether timm has one is known only when it is built.

    Raises:
        UsageError: There is none.
    """
    if not name.startswith((FEATURES, TIMM)) and name not in {*BACKBONES, *PHOTO_BACKBONES}:
        raise unknown_name("backbone", name, [*BACKBONES, *PHOTO_BACKBONES, f"{TIMM}NAME"])
