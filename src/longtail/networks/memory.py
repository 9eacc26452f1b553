"""The classifier of OLTR (Liu et al., CVPR 2019): features enriched by a memory of class centroids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.networks.heads import LinearHead, linear_full_precision


class MetaEmbeddingHead(nn.Module):
    """Dynamic meta-embedding and a cosine classifier whose confidence grows with the length of what it sees.

    A feature v asks a memory of one centroid c_k for each class:

        v_mem = sum_k softmax(W_h v)_k c_k,    e = tanh(W_s v),    x = 10 / min_k ||v - c_k|| (v + e v_mem).

    A feature that is far from all centroids becomes short. Logits are 16 w_k / ||w_k|| . x / (1 + ||x||). No gradient
    reaches the centroids from here.

    Args:
        linear: The trained classifier of plain features, where W_h begins.

    Source: github.com/zhmiao/OpenLongTailRecognition-OLTR, models/MetaEmbeddingClassifier.py and CosNormClassifier.py.
    """

    REACH, SCALE = 10.0, 16.0

    def __init__(self, linear: LinearHead) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.hallucinator = nn.Linear(linear.in_features, linear.out_features)
        self.hallucinator.load_state_dict(linear.state_dict())
        self.selector = nn.Linear(linear.in_features, linear.in_features)
        bound = linear.in_features**-0.5
        self.weight = nn.Parameter(torch.empty_like(linear.weight).uniform_(-bound, bound))
        self.centroids = nn.Parameter(torch.zeros_like(linear.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, d) to logits (B, C)."""
        v, centroids = features.to(self.weight.dtype), self.centroids.detach()
        with torch.autocast(v.device.type, enabled=False):
            shares = self.hallucinator(v).softmax(-1)
            selected = self.selector(v).tanh() * (shares @ centroids)
            # A rare class's only image may lie on its centroid, where the root has no gradient.
            nearest = squared_distances(v, centroids).amin(-1, keepdim=True).clamp(min=1e-12).sqrt()
        x = self.REACH / nearest * (v + selected)
        squashed = x / (1 + x.norm(dim=-1, keepdim=True))
        return self.SCALE * linear_full_precision(squashed, F.normalize(self.weight, dim=1))

    @torch.no_grad()
    def place_centroids(self, features: Tensor, targets: Tensor) -> None:
        """Put each centroid at the mean of its class's features (N, d); one without images stays at zero."""
        sums = torch.zeros_like(self.centroids).index_add_(0, targets, features.to(self.centroids.dtype))
        counts = torch.bincount(targets, minlength=self.out_features).clamp(min=1)
        self.centroids.copy_(sums / counts.unsqueeze(1))


def squared_distances(features: Tensor, centroids: Tensor) -> Tensor:
    """Return ||v - c_k||^2 of features (B, d) and centroids (C, d): (B, C), at least 0.

    By the binomial formula, as in the official code: C d numbers for each image are never in memory together. Not under
    autocast: the formula subtracts large numbers.
    """
    with torch.autocast(features.device.type, enabled=False):
        lengths = features.square().sum(-1, keepdim=True) + centroids.square().sum(-1)
        return (lengths - 2 * features @ centroids.T).clamp(min=0)
