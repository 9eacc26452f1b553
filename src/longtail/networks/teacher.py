"""A trained model that others learn from: frozen, in evaluation mode, without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from longtail.networks.network import Network

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel."""


class Renormalise(nn.Module):
    """Turn images of one normalisation into those of another: x -> (x * std + mean - mean') / std'.

    Args:
        given: Mean and standard deviation of each channel by which the images are normalised.
        wanted: Those by which they shall be.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, given: Normalisation, wanted: Normalisation) -> None:
        super().__init__()
        (mean, std), (new_mean, new_std) = (
            [torch.tensor(part, dtype=torch.float64).view(-1, 1, 1) for part in both] for both in (given, wanted)
        )
        # Not saved: both follow from the configurations.
        self.register_buffer("scale", (std / new_std).float(), persistent=False)
        self.register_buffer("shift", ((mean - new_mean) / new_std).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (B, channels, H, W), normalised anew."""
        return torch.addcmul(self.shift.to(images.dtype), images, self.scale.to(images.dtype))


class Teacher(nn.Module):
    """A trained network with its inference rule, that never trains and never moves its batch-norm statistics.

    Args:
        network: The network; it is used itself, so hand over a copy of one that goes on training.
        inference: The rule that makes test-time logits of the network's logits, such as the mean over experts.
        renormalise: What makes the student's input that of the teacher; None: both are normalised alike.
    """

    def __init__(
        self, network: Network, inference: nn.Module | None = None, renormalise: Renormalise | None = None
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.inference = nn.Identity() if inference is None else inference
        self.renormalise = nn.Identity() if renormalise is None else renormalise
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode, whatever the objective around it is told."""
        return super().train(False)

    @torch.no_grad()
    def expert_logits(self, images: Tensor) -> Tensor:
        """Return the network's own logits of images (B, channels, H, W): (B, C), or (E, B, C) of experts."""
        out: Tensor = self.network(self.renormalise(images))
        return out

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the test-time logits, (B, C), of images (B, channels, H, W)."""
        return self.judge(images)

    def judge(self, images: Tensor) -> Tensor:
        """Return the test-time logits, (B, C), as a function of the images that can be differentiated."""
        out: Tensor = self.inference(self.network(self.renormalise(images)))
        return out
