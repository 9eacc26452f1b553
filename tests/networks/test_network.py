import pytest
import torch

from longtail.errors import UsageError
from longtail.networks import BACKBONES, CosineHead, build_network


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_backbone_gives_features_and_logits(name, in_channels):
    network = build_network(name, 7, in_channels)
    images = torch.randn(4, in_channels, 8, 8)
    features = network.features(images)
    assert features.shape == (4, network.num_features)
    assert network(images).shape == (4, 7)
    assert network.backbone.feature_map(images).shape[:2] == features.shape


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    network = build_network(name, 7)
    network(torch.randn(8, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_forward_is_the_head_of_the_features():
    network = build_network("small", 5, 1, head=CosineHead).eval()
    images = torch.randn(3, 1, 8, 8)
    assert isinstance(network.head, CosineHead)
    assert torch.equal(network(images), network.head(network.features(images)))


def test_the_seed_decides_the_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(build_network("small", 5).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown backbone 'resnet23'(.|\n)*resnet32"):
        build_network("resnet23", 10)


def test_small_network_learns_the_digits():
    """A few epochs on 500 digits must reach 90 % on others."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    targets = torch.tensor(digits.target)
    torch.manual_seed(0)
    network = build_network("small", 10, 1)
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True)
    for _ in range(6):
        for batch in torch.randperm(500).split(50):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images[batch]), targets[batch]).backward()
            optimiser.step()
    with torch.no_grad():
        correct = network.eval()(images[500:]).argmax(1) == targets[500:]
    assert correct.float().mean() > 0.9
