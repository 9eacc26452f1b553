"""BBN's network: what the branches share, what they have, and how two batches pass it."""

import pytest
import torch

from longtail.networks import BACKBONES, build_network
from longtail.networks.bilateral import BilateralBackbone, build_bilateral_network


def seeded(build, *args):
    torch.manual_seed(0)
    return build(*args)


def test_size_is_that_of_the_published_network():
    """0.550 million parameters against 0.470 of ResNet-32: one more basic block, twice the classifier's inputs."""
    network, plain = build_bilateral_network("resnet32", 100), build_network("resnet32", 100)
    block = 2 * 64 * 64 * 9 + 4 * 64
    assert sum(p.numel() for p in plain.parameters()) == 470_004
    assert sum(p.numel() for p in network.parameters()) == 470_004 + block + 64 * 100


@pytest.mark.parametrize("name", BACKBONES)
def test_both_branches_see_one_batch_or_one_each(name):
    network = build_bilateral_network(name, 7).double().eval()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    features = network.features(images)
    assert features.shape == (2, 4, network.num_features)
    assert network(images).shape == (4, 7)
    assert network.backbone.feature_map(images).shape[:3] == features.shape
    torch.testing.assert_close(network.features(torch.stack([images, images])), features)
    other = torch.randn_like(images)
    both = network.features(torch.stack([images, other]))
    torch.testing.assert_close(both[0], features[0])
    torch.testing.assert_close(both[1], network.features(other)[1])


@pytest.mark.parametrize("name", BACKBONES)
def test_trunk_and_first_branch_are_the_plain_network(name):
    network, plain = seeded(build_bilateral_network, name, 7), seeded(build_network, name, 7)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(network.eval().features(images)[0], plain.eval().features(images))
    assert not torch.equal(network.features(images)[1], plain.features(images))


def test_each_batch_is_normalised_by_its_own_statistics():
    network = build_bilateral_network("small", 7).train()
    images, far = torch.randn(4, 3, 8, 8), 100 * torch.randn(4, 3, 8, 8)
    alone = network.features(torch.stack([images, images]))[0]
    torch.testing.assert_close(network.features(torch.stack([images, far]))[0], alone)


def test_the_classifier_reads_the_branches_side_by_side():
    network = build_bilateral_network("small", 7).double().eval()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    first, second = network.features(images)
    expected = torch.cat([first, second], 1) @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(images), expected)


def test_other_numbers_of_branches_and_batches_are_refused():
    with pytest.raises(ValueError, match="two branches, got 1"):
        BilateralBackbone(torch.nn.Identity(), (torch.nn.Identity(),), 3)
    with pytest.raises(ValueError, match="3 batches for 2 branches"):
        build_bilateral_network("small", 7).features(torch.randn(3, 4, 3, 8, 8))


def test_the_classifier_begins_as_the_codes_does():
    """megvii-research/BBN leaves torch's draw, U(-1, 1) / sqrt(2 d): a sixth of the variance of a plain network's."""
    network = seeded(build_bilateral_network, "resnet32", 100)
    bound = (2 * network.num_features) ** -0.5
    assert 0.99 * bound < network.head.weight.detach().abs().max() <= bound
    assert network.head.weight.detach().std() == pytest.approx(bound / 3**0.5, rel=0.02)
