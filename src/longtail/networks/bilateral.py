"""The bilateral network of BBN (Zhou et al., CVPR 2020): one trunk, two last blocks, one classifier on both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtail.networks.backbone import Backbone, pool
from longtail.networks.heads import LinearHead
from longtail.networks.network import Network, build_network


class BilateralBackbone(Backbone):
    """A trunk and two blocks behind it, the conventional branch and the re-balancing one.

    Images are (B, C, H, W), which both branches see, or (2, B, C, H, W), a batch for each. Two batches pass the trunk
    one after the other, so that each is normalised by its own batch statistics. Features are (2, B, d), feature maps
    (2, B, d, h, w).

    Args:
        trunk: What both branches share.
        branches: The conventional and the re-balancing block: from the trunk's output to a feature map (B, d, h, w).
        num_features: Width d of each branch's features.

    Raises:
        ValueError: There are not two branches.
    """

    def __init__(self, trunk: nn.Module, branches: tuple[nn.Module, nn.Module], num_features: int) -> None:
        if len(branches) != 2:
            raise ValueError(f"BilateralBackbone: needs two branches, got {len(branches)}")
        super().__init__(num_features)
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features of each branch, (2, B, d), float32, of images (B, ...) or (2, B, ...)."""
        return torch.stack([pool(feature_map) for feature_map in self._maps(images)])

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map of each branch, (2, B, d, h, w), of images (B, ...) or (2, B, ...)."""
        return torch.stack(self._maps(images))

    def _maps(self, images: Tensor) -> list[Tensor]:
        if images.ndim == 4:
            shared = self.trunk(images)
            return [branch(shared) for branch in self.branches]
        if len(images) != len(self.branches):
            raise ValueError(f"BilateralBackbone: {len(images)} batches for 2 branches")
        parts = [part.contiguous(memory_format=torch.channels_last) for part in images]
        return [branch(self.trunk(part)) for branch, part in zip(self.branches, parts, strict=True)]


class BilateralHead(LinearHead):
    """One linear classifier with bias on the features of two branches side by side: (2, B, d) -> logits (B, C).

    Its weights begin as torch draws them, U(-1, 1) / sqrt(2 d): with alpha at 1 the features come doubled, and with
    the wider draw of `LinearHead` BBN would begin at twice the loss of that.

    Args:
        num_features: Width d of each branch's features.
        num_classes: Number of classes C.

    Source: github.com/megvii-research/BBN, lib/net/network.py (initialisation).
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(2 * num_features, num_classes)
        self.reset_parameters()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Map features (2, ..., d) to logits (..., C)."""
        return super().forward(torch.cat(tuple(features), -1))


def build_bilateral_network(backbone: str, num_classes: int, in_channels: int = 3) -> Network:
    """Build BBN's network with freshly drawn weights (from torch's global generator).

    The first branch is the backbone's own last block and the second is that of another draw, so that trunk and first
    branch have the weights of the plain network of the same seed.

    Args:
        backbone: A name of `BACKBONES`.
        num_classes: Number of classes.
        in_channels: Channels of the images.

    Raises:
        UsageError: There is no backbone of that name.

    Source: github.com/megvii-research/BBN, lib/backbone/resnet_cifar.py and lib/net/network.py (architecture).
    """
    first, second = (build_network(backbone, num_classes, in_channels).backbone for _ in range(2))
    (trunk, conventional), (_, rebalancing) = first.split_last(), second.split_last()
    body = BilateralBackbone(trunk, (conventional, rebalancing), first.num_features)
    return Network(body, BilateralHead(first.num_features, num_classes))
