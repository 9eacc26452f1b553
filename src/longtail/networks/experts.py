"""Several experts in one network: backbones with or without a shared stem, run one by one or all at once.

Everywhere else a network makes features (B, d) and logits (B, C); with E experts they are (E, B, d) and (E, B, C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from longtail.networks.backbone import Backbone, pool
from longtail.networks.batched import run_at_once
from longtail.networks.heads import LinearHead
from longtail.networks.network import Network, build_network

BATCHED_ON = {"cpu": False, "cuda": False}
"""Whether all experts at once are the faster way on a device; `benchmarks/experts.py` measures both.

On a CPU in bfloat16 a step of RIDE's experts takes 1.89 plain steps at once and 1.92 one by one, one of three whole
networks 3.90 and 2.96 (``results/benchmarks/experts-amd-epyc.txt``). On a GPU: not measured yet.
"""


class ExpertBackbone(Backbone):
    """E backbones of one shape behind a stem that they share, or behind nothing.

    Images are (B, C, H, W), which every expert sees, or (E, B, C, H, W), a batch for each expert. Features are
    (E, B, d), feature maps (E, B, d, h, w). The experts run one by one, or all at once as one network with
    grouped convolutions: the same values to float rounding, from the same parameters.

    Args:
        experts: One backbone or more, alike in shape; they map images, or the stem's output, to features.
        stem: The layers that all experts share; None: they share nothing.
        batched: Run all experts at once; None: the faster way on the images' device.
        first_leads: Gradients reach the stem from the first expert only.

    Raises:
        ValueError: There is no expert.
    """

    def __init__(
        self,
        experts: Sequence[Backbone],
        stem: nn.Module | None = None,
        *,
        batched: bool | None = None,
        first_leads: bool = False,
    ) -> None:
        if not experts:
            raise ValueError("ExpertBackbone: needs one expert or more, got none")
        super().__init__(experts[0].num_features)
        self.stem = nn.Identity() if stem is None else stem
        self.experts = nn.ModuleList(experts)
        self.batched = batched
        self.first_leads = first_leads

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features of each expert, (E, B, d), float32, of images (B, ...) or (E, B, ...)."""
        if self._at_once(images):
            return pool(self.feature_map(images))
        x = self._enter(images)
        return torch.stack([expert(part) for expert, part in zip(self.experts, self._parts(x), strict=True)])

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map of each expert, (E, B, d, h, w), of images (B, ...) or (E, B, ...)."""
        x = self._enter(images)
        if self._at_once(images):
            return self._batched(x)
        maps = [
            expert.feature_map(part)  # type: ignore[operator]
            for expert, part in zip(self.experts, self._parts(x), strict=True)
        ]
        return torch.stack(maps)

    def _at_once(self, images: Tensor) -> bool:
        if len(self.experts) == 1:
            return False
        return BATCHED_ON.get(images.device.type, False) if self.batched is None else self.batched

    def _enter(self, images: Tensor) -> Tensor:
        """Apply the stem; its batch norm sees the batches of all experts together."""
        if images.ndim == 5 and len(images) != len(self.experts):
            raise ValueError(f"ExpertBackbone: {len(images)} batches for {len(self.experts)} experts")
        if images.ndim == 4 or isinstance(self.stem, nn.Identity):
            return self.stem(images)  # type: ignore[no-any-return]
        whole: Tensor = self.stem(images.flatten(0, 1))
        return whole.view(*images.shape[:2], *whole.shape[1:])

    def _parts(self, x: Tensor) -> list[Tensor]:
        """Return each expert's input."""
        if x.ndim == 4:
            return [x, *[x.detach() if self.first_leads else x] * (len(self.experts) - 1)]
        return [part.contiguous(memory_format=torch.channels_last) for part in x]

    def _batched(self, x: Tensor) -> Tensor:
        """Run all experts at once: feature maps (E, B, d, h, w)."""
        if x.ndim == 4 and self.first_leads:
            x = torch.stack(self._parts(x))
        if x.ndim == 5:
            x = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        maps = run_at_once([nn.Sequential(*expert.split()) for expert in self.experts], x)  # type: ignore[operator]
        return maps.view(len(maps), len(self.experts), -1, *maps.shape[2:]).transpose(0, 1)


class Branch(Backbone):
    """What an expert has for itself behind a shared stem.

    Args:
        layers: Map the stem's output to the feature map.
        num_features: Width d of the feature map.
    """

    def __init__(self, layers: nn.Sequential, num_features: int) -> None:
        super().__init__(num_features)
        self.layers = layers

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the feature map, (B, d, h, w), of the stem's output (B, c, H, W)."""
        out: Tensor = self.layers(images)
        return out

    def split(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return nothing to share and all layers."""
        return nn.Sequential(), self.layers


class ExpertHead(nn.Module):
    """A head for each of E experts: features (E, B, d) -> logits (E, B, C).

    Args:
        heads: One head or more.
        scale: Factor of all logits: with cosine heads, RIDE's scale s, which is part of its network.

    Raises:
        ValueError: There is no head.
    """

    def __init__(self, heads: Sequence[nn.Module], *, scale: float = 1.0) -> None:
        if not heads:
            raise ValueError("ExpertHead: needs one head or more, got none")
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Map features (E, B, d) to logits (E, B, C)."""
        if len(features) != len(self.heads):
            raise ValueError(f"ExpertHead: features of {len(features)} experts for {len(self.heads)} heads")
        logits = torch.stack([head(part) for head, part in zip(self.heads, features, strict=True)])
        return logits if self.scale == 1 else self.scale * logits

    def extra_repr(self) -> str:
        """Say the scale."""
        return f"scale={self.scale}"


def build_expert_network(
    backbone: str,
    num_classes: int,
    in_channels: int = 3,
    *,
    experts: int = 3,
    head: Callable[[int, int], nn.Module] = LinearHead,
    scale: float = 1.0,
    shared_stem: bool = False,
    reduced: bool = False,
    identical: bool = False,
    batched: bool | None = None,
) -> Network:
    """Build a network of several experts with freshly drawn weights (from torch's global generator).

    The experts are drawn one after the other, each as `build_network` draws a whole network: the first expert of any
    number has the weights of the plain network of the same seed, and one expert alone is that network.

    Args:
        backbone: A name of `BACKBONES`.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        experts: Number of experts E.
        head: Makes each expert's head from the number of features and the number of classes.
        scale: Factor of all logits, see `ExpertHead`.
        shared_stem: Share the first layers, those of the first expert, as RIDE does.
        reduced: Give each expert three quarters of the channels, as RIDE does.
        identical: Give all experts the weights of the first.
        batched: See `ExpertBackbone`.

    Raises:
        UsageError: There is no backbone of that name.
        ValueError: ``experts`` is below 1.

    Source: github.com/frank-xwang/RIDE-LongTailRecognition, model/ridenet_resnet_cifar.py (shared stem).
    """
    if experts < 1:
        raise ValueError(f"build_expert_network: needs one expert or more, got {experts}")
    state = torch.get_rng_state()
    networks = []
    for _ in range(experts):
        if identical:
            torch.set_rng_state(state)
        networks.append(build_network(backbone, num_classes, in_channels, head, reduced=reduced))
    bodies = [network.backbone for network in networks]
    stem = None
    if shared_stem:
        parts = [body.split() for body in bodies]
        stem = parts[0][0]
        bodies = [Branch(own, body.num_features) for (_, own), body in zip(parts, bodies, strict=True)]
    heads = ExpertHead([network.head for network in networks], scale=scale)
    return Network(ExpertBackbone(bodies, stem, batched=batched), heads)
