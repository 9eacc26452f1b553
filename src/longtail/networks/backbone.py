"""What every backbone offers: a feature map, its pooled features, and their width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtail.errors import UsageError


class Backbone(nn.Module):
    """Base of all backbones: images -> feature map -> globally average-pooled features.

    A backbone defines :meth:`feature_map`; methods that fuse or re-weight feature maps use it together with
    :func:`pool`, all others call the backbone itself.

    Args:
        num_features: Width d of the pooled features.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    @property
    def pools_its_map(self) -> bool:
        """Whether the features are the mean of the last feature map over its positions."""
        return type(self).forward is Backbone.forward

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map, (B, d, h, w), of images (B, C, H, W)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features, (B, d), in float32 (or float64), of images (B, C, H, W)."""
        return pool(self.feature_map(images))

    def split(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return the layers that experts share and, after them, those that each expert has for itself.

        The second part makes the feature map of what the first returns; both hold this backbone's own layers.
        """
        raise _undivided(self, "which layers experts share")

    def split_last(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return all layers but the last block and, after them, that block, as `split` does for its two parts."""
        raise _undivided(self, "which of its layers are the last block")


def _undivided(backbone: Backbone, what: str) -> UsageError:
    return UsageError(
        f"{type(backbone).__name__} does not say {what}, and the method needs to know",
        fix="use a backbone of this library, such as resnet50 or resnet32, or a method of one whole network",
    )


def pool(feature_map: Tensor) -> Tensor:
    """Average a feature map (..., d, h, w) over its positions: (..., d), in float32 or better.

    The mean leaves reduced precision here, so that heads, prototypes and feature losses see float32 features.
    """
    dtype = torch.float64 if feature_map.dtype == torch.float64 else torch.float32
    return feature_map.mean((-2, -1), dtype=dtype)


def kaiming_normal_init(module: nn.Module) -> None:
    """Draw the weight of every convolution and linear layer of ``module`` from N(0, 2 / fan_in), as LDAM-DRW does.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015; use: github.com/kaidic/LDAM-DRW.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
