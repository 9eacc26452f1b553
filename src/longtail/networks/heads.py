"""Classifier heads: features (B, d) -> logits (B, C), always computed in float32 (or float64)."""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear_full_precision(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply features (..., d) by a weight (C, d) in the weight's precision, whatever autocast says.

    Rounding a logit to bfloat16 moves it by up to 0.4 %, which is as large as a tail class's log-prior differences.
    """
    with torch.autocast(features.device.type, enabled=False):
        return F.linear(features.to(weight.dtype), weight, bias)


class LinearHead(nn.Linear):
    """Linear classifier with bias, its weight drawn from N(0, 2 / d) as in LDAM-DRW.

    Args:
        num_features: Width d of the features.
        num_classes: Number of classes C.
        bias: What all biases start at; None: torch's uniform draw.

    Source: github.com/kaidic/LDAM-DRW, models/resnet_cifar.py (initialisation).
    """

    def __init__(self, num_features: int, num_classes: int, bias: float | None = None) -> None:
        super().__init__(num_features, num_classes)
        nn.init.kaiming_normal_(self.weight)
        if bias is not None:
            nn.init.constant_(self.bias, bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to logits (..., C)."""
        return linear_full_precision(features, self.weight, self.bias)


class CosineHead(nn.Module):
    """Cosine classifier (Cao et al., LDAM, NeurIPS 2019): logits are cosines in [-1, 1], no bias.

    The scale belongs to the loss (LDAM's ``s``), so predicted probabilities need it too.

    Args:
        num_features: Width d of the features.
        num_classes: Number of classes C.

    Source: github.com/kaidic/LDAM-DRW, models/resnet_cifar.py (NormedLinear, there stored as (d, C)).
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.in_features = num_features
        self.out_features = num_classes
        weight = torch.empty(num_classes, num_features).uniform_(-1, 1)
        self.weight = nn.Parameter(F.normalize(weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to cosines (..., C)."""
        directions = F.normalize(features.to(self.weight.dtype), dim=-1)
        return linear_full_precision(directions, F.normalize(self.weight, dim=1))


class LearnableScalingHead(nn.Module):
    """Learnable weight scaling, LWS (Kang et al., Decoupling, ICLR 2020): ``s_k * (w_k . f + b_k)``, s starting at 1.

    Args:
        linear: The trained head whose logits are scaled (the scale multiplies the bias too).
        freeze: Freeze ``linear`` so that only the C scales are trained, as LWS does; MiSLAS trains both.

    Source: github.com/facebookresearch/classifier-balancing, models/DotProductClassifier.py.
    """

    def __init__(self, linear: LinearHead, *, freeze: bool = True) -> None:
        super().__init__()
        self.linear = linear
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.scale = nn.Parameter(torch.ones_like(linear.weight[:, 0]))
        if freeze:
            linear.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to logits (..., C)."""
        logits: Tensor = self.linear(features)
        return self.scale * logits


class TauNormHead(nn.Module):
    """Tau-normalised classifier (Kang et al., Decoupling, ICLR 2020): ``w_k / ||w_k||^tau``; nothing is trained.

    Args:
        linear: The trained head; its values are copied.
        tau: Strength of the normalisation: 0 keeps the weights, 1 makes all norms equal. The paper picks it in
            0, 0.1, ..., 2 on validation data.
        keep_bias: Add the bias as it is (BagofTricks-LT); the official code drops it.

    Source: github.com/facebookresearch/classifier-balancing, tau_norm.py.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, tau: float = 1.0, *, keep_bias: bool = False) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight = linear.weight.detach().clone()
        norms = weight.norm(dim=1, keepdim=True)
        # A class whose weight is zero has no direction to normalise; it keeps logit 0.
        norms[norms == 0] = 1
        self.register_buffer("weight", weight / norms**tau)
        bias = linear.bias.detach().clone() if keep_bias and linear.bias is not None else None
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to logits (..., C)."""
        return linear_full_precision(features, self.weight, self.bias)


FeatureTransform = Literal["cl2n", "l2n", "un"]
Distance = Literal["l2", "cos"]


class NearestMeanHead(nn.Module):
    """Nearest class mean, NCM (Kang et al., Decoupling, ICLR 2020): the closest class centre wins; nothing is trained.

    The logits are negated squared distances (``"l2"``) or ``f . c_k / d`` (``"cos"``, as the official code has it: the
    centres are not re-normalised). Build it with :meth:`from_features`.

    Args:
        means: Class centres, (C, d), of transformed features; NaN rows are classes without images, never predicted.
        centre: What is subtracted from features, (d,); zero for ``"un"`` and ``"l2n"``.
        normalise: Divide features by their L2 norm.
        distance: ``"l2"`` (the paper's default) or ``"cos"``.

    Raises:
        ValueError: For shapes that do not fit or an unknown distance.

    Source: github.com/facebookresearch/classifier-balancing, models/KNNClassifier.py.
    """

    means: Tensor
    centre: Tensor

    def __init__(self, means: Tensor, centre: Tensor, *, normalise: bool = True, distance: Distance = "l2") -> None:
        super().__init__()
        if means.ndim != 2 or centre.shape != means.shape[1:]:
            raise ValueError(
                "NearestMeanHead: means must be (C, d) and centre (d,), "
                f"got {tuple(means.shape)} and {tuple(centre.shape)}"
            )
        if distance not in ("l2", "cos"):
            raise ValueError(f"NearestMeanHead: distance must be 'l2' or 'cos', got {distance!r}")
        self.out_features, self.in_features = means.shape
        self.normalise = normalise
        self.distance = distance
        self.register_buffer("means", means.detach().clone())
        self.register_buffer("centre", centre.detach().clone())

    @classmethod
    def from_features(
        cls,
        features: Tensor,
        targets: Tensor,
        num_classes: int,
        *,
        transform: FeatureTransform = "cl2n",
        distance: Distance = "l2",
    ) -> Self:
        """Take the class means of training features.

        Args:
            features: Training features, (N, d).
            targets: Their classes, (N,), int64.
            num_classes: Number of classes C.
            transform: ``"cl2n"``: subtract the mean over all images, divide by the norm (the paper's default);
                ``"l2n"``: divide only; ``"un"``: neither.
            distance: ``"l2"`` (the paper's default) or ``"cos"``.

        Raises:
            ValueError: For an unknown transform or distance, or shapes that do not fit.
        """
        if transform not in ("cl2n", "l2n", "un"):
            raise ValueError(f"NearestMeanHead: transform must be 'cl2n', 'l2n' or 'un', got {transform!r}")
        if features.ndim != 2 or targets.shape != features.shape[:1]:
            raise ValueError(
                "NearestMeanHead: features must be (N, d) and targets (N,), "
                f"got {tuple(features.shape)} and {tuple(targets.shape)}"
            )
        features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        centre = features.mean(0) if transform == "cl2n" else torch.zeros_like(features[0])
        normalise = transform != "un"
        sums = features.new_zeros(num_classes, features.shape[1])
        sums.index_add_(0, targets, _transformed(features, centre, normalise))
        counts = torch.bincount(targets, minlength=num_classes)
        return cls(sums / counts[:, None], centre, normalise=normalise, distance=distance)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, d) to logits (B, C); -inf for classes without images."""
        features = _transformed(features.to(self.means.dtype), self.centre, self.normalise)
        if self.distance == "cos":
            scores = linear_full_precision(features, self.means) / self.in_features
        else:
            products = linear_full_precision(features, self.means)
            scores = 2 * products - features.square().sum(-1, keepdim=True) - self.means.square().sum(1)
        return scores.masked_fill(self.means.isnan().any(1), -torch.inf)


def _transformed(features: Tensor, centre: Tensor, normalise: bool) -> Tensor:
    features = features - centre
    return F.normalize(features, dim=-1) if normalise else features
