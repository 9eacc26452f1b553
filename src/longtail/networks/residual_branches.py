"""The network of ResLT (Cui et al., TPAMI 2023): three batch norms on one feature map, one classifier for all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtail.networks.backbone import Backbone
from longtail.networks.network import Network, build_network


class ResidualBranches(Backbone):
    """A backbone whose last feature map goes through one batch norm for each branch, then is pooled.

    Features are (E, B, d), feature maps (E, B, d, h, w); a branch costs 2 d parameters.

    Args:
        body: The backbone that all branches share.
        branches: Number of branches E.
    """

    def __init__(self, body: Backbone, branches: int = 3) -> None:
        super().__init__(body.num_features)
        self.body = body
        self.norms = nn.ModuleList(nn.BatchNorm2d(body.num_features) for _ in range(branches))

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the feature map of each branch, (E, B, d, h, w), of images (B, C, H, W)."""
        shared = self.body.feature_map(images)
        return torch.stack([norm(shared) for norm in self.norms])


def build_residual_network(backbone: str, num_classes: int, in_channels: int = 3) -> Network:
    """Build ResLT's network for CIFAR with freshly drawn weights: those of the plain network of the same seed.

    The head maps features (3, B, d) to logits (3, B, C) with one weight and bias for all branches.

    Args:
        backbone: A name of `BACKBONES`.
        num_classes: Number of classes.
        in_channels: Channels of the images.

    Raises:
        UsageError: There is no backbone of that name.

    Source: github.com/jiequancui/ResLT (architecture).
    """
    plain = build_network(backbone, num_classes, in_channels)
    return Network(ResidualBranches(plain.backbone), plain.head)
