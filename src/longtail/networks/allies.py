"""Experts for nested sets of classes on one trunk that the first alone moves (Cai et al., ACE, ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from longtail.networks.experts import Branch, ExpertBackbone, ExpertHead
from longtail.networks.network import Network, build_network


class AllyHead(ExpertHead):
    """A linear head for each expert; in evaluation mode all speak as loudly as the first.

    In evaluation mode expert e's logits are multiplied by ||w_1|| / ||w_e||, the norms over the rows of the classes
    S_e that it knows.

    Args:
        heads: One linear head for each expert.
        classes: The classes S_e that each knows, (E, C), bool; the first knows all.

    Raises:
        ValueError: There is no head.
    """

    classes: Tensor

    def __init__(self, heads: Sequence[nn.Linear], classes: Tensor) -> None:
        super().__init__(heads)
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (E, B, d) to logits (E, B, C)."""
        logits = super().forward(features)
        return logits if self.training else logits * self.factors().view(-1, 1, 1)

    def factors(self) -> Tensor:
        """Return ||w_1|| / ||w_e|| of each expert, (E,); 1 where an expert has no weights."""
        rows = torch.stack([head.weight for head in self.heads]) * self.classes.unsqueeze(-1)  # type: ignore[misc]
        own = rows.flatten(1).norm(dim=1)
        first = (rows[0] * self.classes.unsqueeze(-1)).flatten(1).norm(dim=1)
        return torch.where(own > 0, first / own.clamp(min=torch.finfo(own.dtype).tiny), 1.0)


def build_ally_network(
    backbone: str, num_classes: int, in_channels: int = 3, *, classes: tuple[tuple[bool, ...], ...]
) -> Network:
    """Build a network in which each expert has the last block and a linear head for itself.

    The first expert and the trunk together are the plain network of the same seed.

    Args:
        backbone: A name of `BACKBONES`.
        num_classes: Number of classes C.
        in_channels: Channels of the images.
        classes: Which classes each expert knows, E rows of C; the first knows all.

    Raises:
        UsageError: There is no backbone of that name, or its last block cannot be taken apart.
    """
    networks = [build_network(backbone, num_classes, in_channels) for _ in classes]
    parts = [network.backbone.split_last() for network in networks]
    bodies = [Branch(block, networks[0].num_features) for _, block in parts]
    heads = AllyHead([network.head for network in networks], torch.tensor(classes))  # type: ignore[misc]
    return Network(ExpertBackbone(bodies, parts[0][0], first_leads=True), heads)
