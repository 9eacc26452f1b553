"""Routers: after each expert they decide whether an image needs the next one (Wang et al., RIDE, ICLR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from longtail.networks.experts import ExpertBackbone, ExpertHead
from longtail.networks.heads import linear_full_precision
from longtail.networks.network import Network


class RoutedHead(nn.Module):
    """Frozen expert heads, and routers that ask the experts in turn until an image needs no more of them.

    Router i sees expert i's features, normalised, through a layer of its own, beside the k largest of the mean logits
    of experts 1..i; the last layer is shared by all routers. The next expert is asked where the score is above 0.

    Args:
        experts: The trained heads of two experts or more; they are frozen.
        hidden: Width of a router's own layer; 16 in the official code.
        top_k: Number k of logits that a router sees, at most the number of classes; 30 on CIFAR in the official code.

    Raises:
        ValueError: There is only one expert.

    Source: github.com/frank-xwang/RIDE-LongTailRecognition, model/ldam_drw_resnets/ea_resnet_cifar.py.
    """

    def __init__(self, experts: ExpertHead, *, hidden: int = 16, top_k: int = 30) -> None:
        super().__init__()
        if len(experts.heads) < 2:
            raise ValueError("RoutedHead: one expert leaves nothing to route; needs two experts or more")
        first = experts.heads[0]
        width, num_classes = int(first.in_features), int(first.out_features)  # type: ignore[arg-type]
        self.experts = experts.requires_grad_(False)
        self.top_k = min(top_k, num_classes)
        self.own = nn.ModuleList(nn.Linear(width, hidden) for _ in experts.heads[1:])
        self.shared = nn.Linear(hidden + self.top_k, 1)
        for layer in (*self.own, self.shared):
            nn.init.kaiming_normal_(layer.weight)

    def score(self, router: int, features: Tensor, mean_logits: Tensor) -> Tensor:
        """Return how much an image needs the next expert, (B,), as a logit.

        Args:
            router: 0-based number of the expert that was asked last.
            features: That expert's, (B, d).
            mean_logits: Mean over the experts asked so far, (B, C).
        """
        own = self.own[router]
        assert isinstance(own, nn.Linear)
        directions = F.normalize(features.to(own.weight.dtype), dim=-1)
        hidden = linear_full_precision(directions, own.weight, own.bias).relu()
        largest = mean_logits.to(hidden.dtype).topk(self.top_k, dim=-1).values
        return linear_full_precision(torch.cat([largest, hidden], -1), self.shared.weight, self.shared.bias).squeeze(-1)

    def scores(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the scores of all routers, (E - 1, B), of features (E, B, d) and expert logits (E, B, C)."""
        means = running_means(logits)
        return torch.stack([self.score(k, features[k], means[k]) for k in range(len(self.own))])

    def forward(self, features: Tensor) -> Tensor:
        """Map features (E, B, d) to expert logits (E, B, C), NaN where an expert is not asked about an image."""
        logits: Tensor = self.experts(features)
        means = running_means(logits)
        asked = torch.ones_like(logits[0, :, 0], dtype=torch.bool)
        answers = [logits[0]]
        for k in range(len(self.own)):  # the next expert is asked as long as no router has stopped before
            asked = asked & (self.score(k, features[k], means[k]) > 0)
            answers.append(logits[k + 1].masked_fill(~asked.unsqueeze(-1), torch.nan))
        return torch.stack(answers)


def running_means(logits: Tensor) -> Tensor:
    """Return the mean logits of the first expert, of the first two, and so on: (E, B, C) of (E, B, C)."""
    numbers = torch.arange(1, len(logits) + 1, dtype=logits.dtype, device=logits.device)
    return logits.cumsum(0) / numbers.view(-1, 1, 1)


@torch.no_grad()
def ask_in_turn(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Answer images with no more of the network than each needs; the values are those of running all experts.

    It waits for the device before every further expert, so that it pays where many images stop early.

    Args:
        network: An `ExpertBackbone` with a `RoutedHead`, in evaluation mode.
        images: Normalised images, (B, channels, H, W).

    Returns:
        Logits, (B, C), the mean over the experts that were asked, and their number for each image, (B,), int64.

    Raises:
        TypeError: The network has no routers.
    """
    backbone, head = network.backbone, network.head
    if not isinstance(backbone, ExpertBackbone) or not isinstance(head, RoutedHead):
        raise TypeError("ask_in_turn: needs a network of experts with routers")
    x = backbone.stem(images)
    open_ = torch.arange(len(images), device=images.device)
    total, used = torch.empty(0), torch.empty(0)
    for k, (expert, own_head) in enumerate(zip(backbone.experts, head.experts.heads, strict=True)):
        features = expert(x)
        logits = head.experts.scale * own_head(features)
        if k == 0:
            total, used = logits, torch.ones_like(open_)
        else:
            total[open_] += logits
            used[open_] += 1
        if k == len(head.own):
            break
        more = head.score(k, features, total[open_] / (k + 1)) > 0
        open_, x = open_[more], x[more]
        if not len(open_):
            break
    return total / used.unsqueeze(-1), used


def multiplications(network: Network, image_shape: tuple[int, ...]) -> list[int]:
    """Count the multiplications that one image costs by the number of experts that are asked.

    Args:
        network: A network of experts, with or without routers.
        image_shape: (channels, H, W).

    Returns:
        For 1, 2, ..., E experts: multiplications of convolutions and linear layers.

    Raises:
        TypeError: The network has no experts.
    """
    backbone, head = network.backbone, network.head
    if not isinstance(backbone, ExpertBackbone):
        raise TypeError("multiplications: needs a network of experts")
    heads = head.experts if isinstance(head, RoutedHead) else head
    assert isinstance(heads, ExpertHead)
    was_training = network.training
    network.eval()
    x = torch.zeros(1, *image_shape, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counts = []
        x = backbone.stem(x)
        for k, (expert, own_head) in enumerate(zip(backbone.experts, heads.heads, strict=True)):
            features = expert(x)
            logits = own_head(features)
            if isinstance(head, RoutedHead) and k < len(head.own):
                head.score(k, features, logits)
            counts.append(counter.get_total_flops() // 2)  # torch counts a multiplication and its addition
    network.train(was_training)
    return counts
