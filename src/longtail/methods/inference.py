"""Rules that turn a network's logits into the logits that are evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from longtail.losses import post_hoc_logit_adjustment


class ScaleLogits(nn.Module):
    """Multiply the logits by a constant: the scale of a cosine classifier, for confidences.

    Args:
        scale: The factor s.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor) -> Tensor:
        """Return s * logits, same shape."""
        return self.scale * logits


class SubtractLogPrior(nn.Module):
    """Post-hoc logit adjustment (Menon et al., ICLR 2021): z_c - tau log pi_c.

    The shift follows from the class counts, so it is computed once and not saved.

    Args:
        class_counts: Training images per class, length C.
        tau: Strength; the paper's default is 1.
    """

    shift: Tensor

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.class_counts = tuple(class_counts)
        zeros = torch.zeros(len(self.class_counts), dtype=torch.float64)
        self.register_buffer("shift", post_hoc_logit_adjustment(zeros, self.class_counts, tau), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the adjusted logits (..., C), float32 or float64."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits + self.shift.to(dtype=logits.dtype).to(logits.device)


class AverageExperts(nn.Module):
    """One answer of several experts.

    Args:
        rule: ``"logits"``: the mean of the experts' logits (RIDE and its successors); ``"probabilities"``: the mean of
            their softmax probabilities, returned as its logarithm.
    """

    def __init__(self, rule: Literal["logits", "probabilities"] = "logits") -> None:
        super().__init__()
        self.rule = rule

    def forward(self, logits: Tensor) -> Tensor:
        """Map expert logits (E, B, C) to logits (B, C)."""
        if self.rule == "logits":
            return logits.mean(0)
        return torch.logsumexp(logits.log_softmax(-1), 0) - math.log(len(logits))


class AverageAsked(nn.Module):
    """The mean of the logits of those experts that were asked about an image.

    Experts that were not asked have NaN in all classes, as `longtail.networks.RoutedHead` leaves them.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Map expert logits (E, B, C) to logits (B, C)."""
        missing = logits.isnan()
        return logits.masked_fill(missing, 0).sum(0) / (~missing).sum(0)


class PickExpert(nn.Module):
    """The answer of one expert.

    Args:
        expert: 0-based number of the expert.
    """

    def __init__(self, expert: int = 0) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, logits: Tensor) -> Tensor:
        """Map expert logits (E, B, C) to logits (B, C)."""
        return logits[self.expert]
