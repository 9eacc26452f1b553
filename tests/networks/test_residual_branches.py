"""ResLT's network: a batch norm for each branch, everything else shared."""

import pytest
import torch

from longtail.networks import BACKBONES, build_network, pool
from longtail.networks.residual_branches import build_residual_network


@pytest.mark.parametrize("name", BACKBONES)
def test_branches_differ_by_their_batch_norm_alone(name):
    network = build_residual_network(name, 7).double().eval()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for norm in network.backbone.norms[1:]:
            norm.weight.normal_()
            norm.bias.normal_()
    shared = network.backbone.body.feature_map(images)
    features, logits = network.features(images), network(images)
    assert features.shape == (3, 4, network.num_features)
    assert logits.shape == (3, 4, 7)
    for feature, logit, norm in zip(features, logits, network.backbone.norms, strict=True):
        torch.testing.assert_close(feature, pool(norm(shared)))
        torch.testing.assert_close(logit, network.head(feature))
    assert not torch.allclose(logits[0], logits[1])


def test_it_costs_the_batch_norms_and_is_else_the_plain_network_of_the_seed():
    torch.manual_seed(0)
    network = build_residual_network("resnet32", 100)
    torch.manual_seed(0)
    plain = build_network("resnet32", 100)
    assert sum(p.numel() for p in network.parameters()) == 470_004 + 3 * 2 * 64
    body = network.backbone.body.state_dict()
    assert all(torch.equal(body[key], value) for key, value in plain.backbone.state_dict().items())
    assert torch.equal(network.head.weight, plain.head.weight)
