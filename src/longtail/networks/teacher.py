"""A trained model that others learn from: frozen, in evaluation mode, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtail.networks.network import Network


class Teacher(nn.Module):
    """A trained network with its inference rule, that never trains and never moves its batch-norm statistics.

    Args:
        network: The network; it is used itself, so hand over a copy of one that goes on training.
        inference: The rule that makes test-time logits of the network's logits, such as the mean over experts.
    """

    def __init__(self, network: Network, inference: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.inference = nn.Identity() if inference is None else inference
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode, whatever the objective around it is told."""
        return super().train(False)

    @torch.no_grad()
    def expert_logits(self, images: Tensor) -> Tensor:
        """Return the network's own logits of images (B, channels, H, W): (B, C), or (E, B, C) of experts."""
        out: Tensor = self.network(images)
        return out

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the test-time logits, (B, C), of images (B, channels, H, W)."""
        return self.judge(images)

    def judge(self, images: Tensor) -> Tensor:
        """Return the test-time logits, (B, C), as a function of the images that can be differentiated."""
        out: Tensor = self.inference(self.network(images))
        return out
