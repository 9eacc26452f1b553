"""The backbone that is none."""

import torch

from longtail.networks import CosineHead, FeatureBackbone, build_network


def test_features_pass_unchanged():
    backbone = FeatureBackbone(5)
    features = torch.randn(3, 5)
    assert torch.equal(backbone(features), features)
    assert torch.equal(backbone(features[:, :, None, None]), features)
    assert backbone(features.half()).dtype == torch.float32
    assert backbone(features.double()).dtype == torch.float64
    assert backbone.feature_map(features).shape == (3, 5, 1, 1)


def test_by_name_it_makes_a_linear_classifier():
    network = build_network("features:5", 4, 5, CosineHead)
    assert network.num_features == 5
    assert [tuple(p.shape) for p in network.parameters()] == [(4, 5)]
    assert network(torch.randn(2, 5, 1, 1)).shape == (2, 4)
