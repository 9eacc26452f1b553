"""The classifier of De-confound-TDE (Tang et al., NeurIPS 2020), and the network with two tails of its CIFAR code."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.networks.backbone import Backbone
from longtail.networks.heads import linear_full_precision
from longtail.networks.network import Network, build_network


class CausalNormHead(nn.Module):
    """Multi-head normalised classifier that leaves out, at the test, what all images have in common.

    Features and weights are cut into H parts x^h and w_k^h. In training mode, with gradients,

        z_k = tau / H sum_h w_k^h . x^h / ((||w_k^h|| + gamma) ||x^h||),

    and d <- mu d + mean of the batch's x, the direction in which momentum drags all features. In evaluation mode the
    part along it is taken away: x^h / ||x^h|| - alpha cos(x^h, d^h) d^h / ||d^h|| stands for x^h / ||x^h||.

    Args:
        num_features: Width of the features.
        num_classes: Number of classes C.
        heads: H; must divide ``num_features``.
        tau: Scale of the logits.
        gamma: Added to the norm of a weight, so that short weights count less.
        alpha: How much is taken away; 0: nothing. It can be changed after the training.
        mu: How much of d stays from step to step. Only its direction counts.

    Raises:
        UsageError: The heads do not divide the features.

    Source: github.com/KaihuaTang/Long-Tailed-Recognition.pytorch, classification/models/CausalNormClassifier.py.
    """

    mean: Tensor

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        heads: int = 2,
        tau: float = 16.0,
        gamma: float = 1 / 32,
        alpha: float = 1.5,
        mu: float = 0.9,
    ) -> None:
        super().__init__()
        if heads < 1 or num_features % heads:
            raise UsageError(f"{heads} heads do not divide {num_features} features", fix="use --heads 1, 2 or 4")
        self.in_features = num_features
        self.out_features = num_classes
        self.heads = heads
        self.tau = tau
        self.gamma = gamma
        self.alpha = alpha
        self.mu = mu
        bound = num_features**-0.5
        self.weight = nn.Parameter(torch.empty(num_classes, num_features).uniform_(-bound, bound))
        self.register_buffer("mean", torch.zeros(num_features))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to logits (..., C)."""
        x = features.to(self.weight.dtype)
        directions = F.normalize(self._parts(x), dim=-1)
        if self.training:
            if torch.is_grad_enabled():
                self._remember(x.detach())
        else:
            common = F.normalize(self._parts(self.mean), dim=-1)
            cosines = (directions * common).sum(-1, keepdim=True)
            directions = directions - self.alpha * cosines * common
        weights = self._parts(self.weight)
        weights = weights / (weights.norm(dim=-1, keepdim=True) + self.gamma)
        return self.tau / self.heads * linear_full_precision(directions.flatten(-2), weights.flatten(-2))

    def _parts(self, vectors: Tensor) -> Tensor:
        """Cut vectors (..., d) into (..., H, d / H)."""
        return vectors.reshape(*vectors.shape[:-1], self.heads, -1)

    def _remember(self, x: Tensor) -> None:
        self.mean.mul_(self.mu).add_(x.flatten(0, -2).mean(0))

    def extra_repr(self) -> str:
        """Describe the numbers."""
        return f"heads={self.heads}, tau={self.tau}, gamma={self.gamma}, alpha={self.alpha}, mu={self.mu}"


class TwoTailBackbone(Backbone):
    """A trunk and two last blocks behind it, whose feature maps stand side by side: (B, C, H, W) -> (B, 2d, h, w).

    Args:
        trunk: All layers but the last block.
        tails: Two draws of the last block: from the trunk's output to a feature map (B, d, h, w).
        num_features: Width d of one of them.
    """

    def __init__(self, trunk: nn.Module, tails: tuple[nn.Module, nn.Module], num_features: int) -> None:
        super().__init__(2 * num_features)
        self.trunk = trunk
        self.tails = nn.ModuleList(tails)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return both tails' last feature maps side by side, (B, 2d, h, w), of images (B, C, H, W)."""
        shared = self.trunk(images)
        return torch.cat([tail(shared) for tail in self.tails], 1)


def build_two_tailed_network(
    backbone: str, num_classes: int, in_channels: int = 3, head: Callable[[int, int], nn.Module] = CausalNormHead
) -> Network:
    """Build a network whose last block is doubled, and with it the width of the features; see `build_network`.

    Args:
        backbone: A name of `BACKBONES`.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        head: Makes the head from the number of features and the number of classes.

    Raises:
        UsageError: There is no backbone of that name.
    """
    first, second = (build_network(backbone, num_classes, in_channels).backbone for _ in range(2))
    (trunk, one), (_, other) = first.split_last(), second.split_last()
    body = TwoTailBackbone(trunk, (one, other), first.num_features)
    return Network(body, head(body.num_features, num_classes))
