"""The network that methods train: a backbone that makes features and a head that makes logits of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from longtail.errors import unknown_name
from longtail.networks.backbone import Backbone
from longtail.networks.cifar_resnet import CifarResNet
from longtail.networks.heads import LinearHead
from longtail.networks.small import SmallNet

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet20": partial(CifarResNet, 3),
    "resnet32": partial(CifarResNet, 5),
    "resnet44": partial(CifarResNet, 7),
    "small": SmallNet,
}
"""Every backbone by name: images' channels -> backbone; ``reduced=True`` makes the narrower one of RIDE's experts."""


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
) -> Network:
    """Build a network with freshly drawn weights (from torch's global generator).

    Args:
        backbone: A name of :data:`BACKBONES`: ``"resnet20"``, ``"resnet32"``, ``"resnet44"`` (CIFAR) or ``"small"``
            (digits).
        num_classes: Number of classes.
        in_channels: Channels of the images.
        head: Makes the head from the number of features and the number of classes.
        reduced: Take three quarters of the channels behind the first layers, as RIDE's experts do.

    Raises:
        UsageError: If there is no backbone of that name.
    """
    if backbone not in BACKBONES:
        raise unknown_name("backbone", backbone, BACKBONES)
    body = BACKBONES[backbone](in_channels, reduced=True) if reduced else BACKBONES[backbone](in_channels)
    return Network(body, head(body.num_features, num_classes))
