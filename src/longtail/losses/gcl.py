"""Gaussian clouded logits (Li, Cheung and Lu, CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.base import ClassCountLoss, target_mask, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_class_counts, check_number
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.reduction import Reduction


def cloud_sizes(class_counts: ClassCounts) -> Tensor:
    """Relative size of each class's cloud, ``log(n_max / n_c) / log(n_max / n_min)``.

    The largest class has 0, the smallest 1. With equal counts every class has 0 (the authors' code divides 0 by 0).
    The smallest class is sought among those with images; a class without images has 1.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.

    Returns:
        Sizes, (C,), float64, in [0, 1].

    Raises:
        ValueError: If the counts break these rules.
    """
    counts = check_class_counts(class_counts)
    delta = (counts.max() / counts.clamp(min=int(counts[counts > 0].min())).double()).log()
    return delta / delta.max() if delta.max() > 0 else delta


def cloud_noise(shape: torch.Size | tuple[int, ...], device: torch.device | str | None = None) -> Tensor:
    """Draw from N(0, 1/9) cut to [-1, 1], from torch's global generator; float32."""
    return torch.randn(shape, device=device).div_(3).clamp_(-1, 1)


def gcl_loss(
    cosines: Tensor,
    targets: Tensor,
    sizes: Tensor,
    noise: Tensor,
    *,
    s: float = 30.0,
    noise_mul: float = 0.5,
    m: float = 0.0,
    gamma: float = 0.0,
) -> Tensor:
    """GCL loss of each sample: cross-entropy of ``s (z - noise_mul |noise| size_c - m onehot_y)``.

    Every logit is lowered, not the own class's only. With ``gamma`` the loss is multiplied by ``(1 - p_y) ** gamma``,
    which carries no gradient.

    Args:
        cosines: Unscaled cosines, (B, C).
        targets: Class indices, (B,), int64.
        sizes: From `cloud_sizes`, (C,).
        noise: A draw for each sample and class, (B, C); its sign does not matter.
        s: Scale of the cosines inside the softmax.
        noise_mul: Size of the largest cloud.
        m: Margin of the own class.
        gamma: Focusing exponent >= 0 of the factor; 0 for none.

    Returns:
        Losses, (B,), float32 or float64.
    """
    cosines = upcast(cosines)
    clouded = cosines - noise_mul * noise.abs().to(cosines.dtype) * sizes.to(cosines.dtype)
    if m:
        clouded = torch.where(target_mask(cosines, targets), clouded - m, clouded)
    losses = cross_entropy_loss(s * clouded, targets)
    if gamma:
        # 1 - p_y without cancellation for sure samples.
        losses = (-torch.expm1(-losses.detach())).pow(gamma) * losses
    return losses


class GCLLoss(ClassCountLoss):
    """Gaussian clouded logits: one-sided noise on the cosines, larger for rarer classes (Li et al., CVPR 2022).

    It expects cosines in [-1, 1] and scales them itself. The noise is drawn anew at every call from torch's global
    generator; in evaluation mode (``loss.eval()``) there is none. On average it is logit adjustment with
    ``tau = 0.266 s noise_mul / log(n_max / n_min)``.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        s: Scale of the cosines, >= 0; 30, in the classifier stage 20.
        noise_mul: Size of the smallest class's cloud, >= 0; 0.5 in the official code.
        m: Margin of the own class, >= 0; 0, in the classifier stage 0.1.
        gamma: Exponent of a focal factor without gradient, >= 0; 0, in the classifier stage 1.
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/Keke921/GCLLoss (losses.py).
    """

    balances = True
    sizes: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        s: float = 30.0,
        noise_mul: float = 0.5,
        m: float = 0.0,
        gamma: float = 0.0,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.register_per_class("sizes", cloud_sizes(class_counts))
        self.s = check_number("s", s, 0)
        self.noise_mul = check_number("noise_mul", noise_mul, 0)
        self.m = check_number("m", m, 0)
        self.gamma = check_number("gamma", gamma, 0)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the GCL loss of each sample, (B,), from unscaled cosines (B, C)."""
        noise = cloud_noise(logits.shape, logits.device) if self.training else torch.zeros_like(logits)
        return gcl_loss(
            logits, targets, self.sizes, noise, s=self.s, noise_mul=self.noise_mul, m=self.m, gamma=self.gamma
        )

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"s={self.s}, noise_mul={self.noise_mul}, m={self.m}, gamma={self.gamma}, {super().extra_repr()}"
