"""Softmax equalization loss, SEQL (Tan et al., CVPR 2020): rare classes are spared from others' gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.base import ClassCountLoss, target_mask, upcast
from longtail.losses.checks import ClassCounts, ClassWeights, check_class_counts, check_number
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.reduction import Reduction


def rare_classes(class_counts: ClassCounts, threshold: float) -> Tensor:
    """Classes with less than the share ``threshold`` of all training images, (C,), bool.

    Raises:
        ValueError: If the counts are not valid or the threshold is not in [0, 1].
    """
    check_number("threshold", threshold, 0, 1)
    counts = check_class_counts(class_counts).double()
    return counts / counts.sum() < threshold


def softmax_equalization_loss(logits: Tensor, targets: Tensor, rare: Tensor, drawn: Tensor) -> Tensor:
    """SEQL of each sample: cross-entropy over a softmax without the rare classes drawn for that sample.

    The sample's own class always stays, so the loss is >= 0.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64.
        rare: From `rare_classes`, (C,), bool.
        drawn: Which classes are drawn for each sample, (B, C), bool; only rare ones are dropped.

    Returns:
        Losses, (B,), float32 or float64.
    """
    logits = upcast(logits)
    dropped = drawn & rare & ~target_mask(logits, targets)
    return cross_entropy_loss(logits.masked_fill(dropped, -torch.inf), targets)


class SoftmaxEqualizationLoss(ClassCountLoss):
    """SEQL: drops rare classes at random from the softmax of other classes' samples (Tan et al., CVPR 2020).

    Every forward draws, for each sample and class alone, with probability ``gamma``; a drawn rare class that is not
    the sample's own leaves the partition function and gets no gradient. Predict with the plain softmax. A class
    without images is rare; with equal counts and ``threshold <= 1/C`` no class is, and the loss is cross-entropy. If
    all classes are rare and ``gamma=1``, it is identically 0.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        gamma: Probability of the draw in [0, 1]; 0 is cross-entropy. 0.9 in the bag-of-tricks code.
        threshold: Share of all training images below which a class is rare (the paper's lambda); the default 0.005
            makes 52 of CIFAR-100's classes rare at imbalance 100. CIFAR-10 needs about 0.05.
        class_weights: Weight of each class; None for no weights.
        reduction: ``"batch"``, ``"weight_sum"``, ``"sum"`` or ``"none"``.
        generator: Source of the draws, on the logits' device; None for PyTorch's global one. Its state is not part of
            the module's.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/zhangyongshun/BagofTricks-LT (equalization_loss.py) and
        https://github.com/tztztztztz/eql.detectron2 (issue 9, the authors' softmax form).
    """

    rare: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        gamma: float = 0.9,
        threshold: float = 0.005,
        *,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "batch",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights, reduction=reduction)
        self.register_per_class("rare", rare_classes(class_counts, threshold))
        self.gamma = check_number("gamma", gamma, 0, 1)
        self.threshold = float(threshold)
        self.generator = generator

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Draw a mask and return the SEQL of each sample, (B,)."""
        draws = torch.rand(logits.shape, generator=self.generator, device=logits.device)
        return softmax_equalization_loss(logits, targets, self.rare, draws < self.gamma)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        return f"gamma={self.gamma}, threshold={self.threshold}, {super().extra_repr()}"
