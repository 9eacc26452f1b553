"""Label smoothing (Szegedy et al., CVPR 2016) and label-aware smoothing (Zhong et al., CVPR 2021)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from longtail.losses.base import ClassCountLoss, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_choice, check_class_counts, check_number
from longtail.losses.reduction import Reduction

SmoothingShape = Literal["concave", "linear", "convex"]
OffTarget = Literal["all", "others"]


def label_smoothing_loss(logits: Tensor, targets: Tensor, smoothing: Tensor, off_target: OffTarget = "all") -> Tensor:
    """Cross-entropy of each sample with a smoothed label.

    Args:
        logits: (B, C), C >= 2.
        targets: Class indices, (B,), int64.
        smoothing: Share eps of each class's label that is spread, (C,), in [0, 1].
        off_target: ``"all"`` spreads eps evenly over all C classes, the sample's own included; ``"others"`` over the
            C - 1 others.

    Returns:
        Losses, (B,), float32 or float64.
    """
    log_p = torch.log_softmax(upcast(logits), dim=1)
    own = log_p.gather(1, targets.unsqueeze(1)).squeeze(1)
    # The mean over all classes holds the sample's own once; over the others it is taken out again.
    spread = log_p.mean(dim=1) if off_target == "all" else (log_p.sum(dim=1) - own) / (log_p.shape[1] - 1)
    eps = smoothing.to(log_p.dtype)[targets]
    return -((1 - eps) * own + eps * spread)


def label_aware_smoothing(
    class_counts: ClassCounts, head: float, tail: float, shape: SmoothingShape = "concave"
) -> Tensor:
    """Smoothing of each class: ``head`` for the largest, ``tail`` for the smallest, by count between them.

    With ``t = (n_c - n_min) / (n_max - n_min)`` the smoothing is ``tail + (head - tail) g(t)``, where g is
    ``sin(pi t / 2)`` (concave), ``t`` (linear) or ``1 - cos(pi t / 2)`` (convex). As in the authors' code a class
    without images is simply the smallest. With equal counts every class has ``head`` (there the authors' code divides
    0 by 0).

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        head: Smoothing of the largest class, in [0, 1].
        tail: Smoothing of the smallest class, in [0, 1].
        shape: ``"concave"`` (the paper's default), ``"linear"`` or ``"convex"``.

    Returns:
        Smoothing, (C,), float64.

    Raises:
        ValueError: If an argument breaks these rules.
    """
    check_number("head", head, 0, 1)
    check_number("tail", tail, 0, 1)
    check_choice("shape", shape, get_args(SmoothingShape))
    counts = check_class_counts(class_counts).double()
    span = counts.max() - counts.min()
    t = (counts - counts.min()) / span if span > 0 else torch.ones_like(counts)
    if shape == "concave":
        t = torch.sin(math.pi / 2 * t)
    elif shape == "convex":
        t = 1 - torch.cos(math.pi / 2 * t)
    return tail + (head - tail) * t


class LabelSmoothingLoss(ClassCountLoss):
    """Cross-entropy with the same label smoothing for every class (Szegedy et al., CVPR 2016).

    Nothing here depends on the counts but the number of classes.

    Args:
        class_counts: Training images per class, C numbers.
        smoothing: Share of the label that is spread over all C classes, in [0, 1]; 0.1 in the paper.
        class_weights: Weight of each class (of the sample's label, for its whole loss); None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.
    """

    smoothing_per_class: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        smoothing: float = 0.1,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.smoothing = check_number("smoothing", smoothing, 0, 1)
        per_class = torch.full((self.num_classes,), self.smoothing, dtype=torch.float64)
        self.register_per_class("smoothing_per_class", per_class)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the smoothed cross-entropy of each sample, (B,)."""
        return label_smoothing_loss(logits, targets, self.smoothing_per_class)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"smoothing={self.smoothing}, {super().extra_repr()}"


class LabelAwareSmoothingLoss(ClassCountLoss):
    """Label-aware smoothing: smooths head labels more than tail labels (Zhong et al., MiSLAS, CVPR 2021).

    Made for MiSLAS's second stage, a classifier on a frozen backbone. With equal counts every class has the smoothing
    ``head``; a class without images is the smallest and takes ``tail``. ``head=tail=0`` is cross-entropy.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        head: Smoothing of the largest class, in [0, 1]; in the paper .1 to .4 growing with the imbalance, .3 for
            CIFAR-10 at 100 and for ImageNet-LT.
        tail: Smoothing of the smallest class, in [0, 1]; 0 in the paper, .1 for CIFAR-100 at 100 and Places-LT.
        shape: How smoothing grows with the count: ``"concave"`` (the paper's default), ``"linear"`` or ``"convex"``.
        off_target: ``"all"`` (the authors' code and the default) spreads eps over all C classes, ``"others"`` (the
            paper's formula) over the other C - 1.
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/dvlab-research/MiSLAS (methods.py).
    """

    smoothing_per_class: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        head: float = 0.3,
        tail: float = 0.0,
        shape: SmoothingShape = "concave",
        off_target: OffTarget = "all",
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        check_choice("off_target", off_target, get_args(OffTarget))
        self.register_per_class("smoothing_per_class", label_aware_smoothing(class_counts, head, tail, shape))
        self.head, self.tail = float(head), float(tail)
        self.shape: SmoothingShape = shape
        self.off_target: OffTarget = off_target

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the smoothed cross-entropy of each sample, (B,)."""
        return label_smoothing_loss(logits, targets, self.smoothing_per_class, self.off_target)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return (
            f"head={self.head}, tail={self.tail}, shape={self.shape!r}, off_target={self.off_target!r}, "
            f"{super().extra_repr()}"
        )
