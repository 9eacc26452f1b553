"""No backbone at all: features that somebody else computed, so that classifiers can be trained on them."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.networks.backbone import Backbone

FEATURES = "features:"


class FeatureBackbone(Backbone):
    """Returns its input: features (B, d), or (B, d, 1, 1) as images of one position.

    Args:
        num_features: Width d.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, (B, d), in float32 (or float64)."""
        features = images.flatten(1)
        return features if features.dtype == torch.float64 else features.float()

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the features as a map of one position, (B, d, 1, 1)."""
        return self(images)[:, :, None, None]  # type: ignore[no-any-return]
