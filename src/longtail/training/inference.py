"""Forward passes without training: logits of a set of images, features of the training set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longtail.augment import Compose
from longtail.networks import Network
from longtail.training.runtime import Runtime

_BATCH = 512
_BATCH_PIXELS = 4 << 20  # of larger images fewer at once, so that memory stays bounded


class HeadView(nn.Module):
    """A network whose input is its own stored features: what cached-feature stages train."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.head = network.head

    def features(self, features: Tensor) -> Tensor:
        """Return stored features (B, d) as they are, those of experts, (B, E, d), as (E, B, d)."""
        return features if features.ndim == 2 else features.movedim(1, 0)

    def forward(self, features: Tensor) -> Tensor:
        """Return the head's logits of stored features."""
        out: Tensor = self.head(self.features(features))
        return out


@torch.no_grad()
def _in_batches(images: Tensor, plain: Compose, runtime: Runtime, forward: Callable[[Tensor], Tensor]) -> Tensor:
    device = torch.device(runtime.device)
    generator = torch.Generator(device)
    outputs = []
    batch_size = max(16, min(_BATCH, _BATCH_PIXELS // (images.shape[-2] * images.shape[-1])))
    with torch.compiler.set_stance("force_eager"):
        for part in torch.split(images, batch_size):
            with runtime.autocast():
                outputs.append(forward(plain(part.to(device), generator)).float())
    return torch.cat(outputs, -2)  # expert logits are (E, B, C)


def network_logits(network: nn.Module, images: Tensor, plain: Compose, runtime: Runtime) -> Tensor:
    """Return what the network says of images, before any inference rule.

    Args:
        network: The network, or a teacher; evaluated in evaluation mode and left in the mode it had.
        images: uint8, (N, C, H, W).
        plain: Test-time transforms.
        runtime: Device and precision.

    Returns:
        Logits, (N, C), or (E, N, C) of a network of experts, float32, on the network's device.
    """
    was_training = network.training
    network.eval()
    logits = _in_batches(images, plain, runtime, network)
    network.train(was_training)
    return logits


def predict_logits(network: Network, inference: nn.Module, images: Tensor, plain: Compose, runtime: Runtime) -> Tensor:
    """Return the test-time logits of images, (N, C): those of the network under the recipe's inference rule."""
    logits: Tensor = inference(network_logits(network, images, plain, runtime))
    return logits


def extract_features(network: Network, images: Tensor, plain: Compose, runtime: Runtime) -> Tensor:
    """Return the backbone's features of images, (N, d) or (E, N, d), float32, in evaluation mode."""
    was_training = network.training
    network.eval()
    features = _in_batches(images, plain, runtime, network.features)
    network.train(was_training)
    return features


def stored_features(network: Network, images: Tensor, plain: Compose, runtime: Runtime) -> Tensor:
    """Return `extract_features` with the images first, for gathering batches: (N, d) or (N, E, d)."""
    features = extract_features(network, images, plain, runtime)
    return features if features.ndim == 2 else features.movedim(0, 1).contiguous()


@torch.no_grad()
def head_logits(network: Network, features: Tensor, runtime: Runtime) -> Tensor:
    """Return what the head says of stored features, before any inference rule; see `stored_features`.

    Args:
        network: The network; its head is evaluated in evaluation mode and left in the mode it had.
        features: (N, d) or (N, E, d), on the network's device.
        runtime: Precision.

    Returns:
        Logits, (N, C), or (E, N, C) of a network of experts, float32, but for rounding those of `network_logits`.
    """
    was_training = network.head.training
    view = HeadView(network).eval()
    with torch.compiler.set_stance("force_eager"), runtime.autocast():
        logits: Tensor = view(features).float()
    network.head.train(was_training)
    return logits
