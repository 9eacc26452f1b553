"""From the losses of single samples to the scalar of a batch. Codes differ here, and it changes the step size.

PyTorch's weighted mean divides by the sum of the batch's class weights, so a batch of head images takes as large a step
as a batch of tail images, and the scale of the weights cancels. TensorFlow codes such as the one of class-balanced loss
divide by the batch size. With effective-number weights on a long tail the second step is up to ten times smaller.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

Reduction = Literal["batch", "weight_sum", "sum", "none"]
"""How sample losses become one number; see `reduce_losses`."""

REDUCTIONS: tuple[str, ...] = get_args(Reduction)


def reduce_losses(
    losses: Tensor,
    targets: Tensor,
    class_weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "batch",
) -> Tensor:
    """Weight the losses of a batch by class and by sample, and reduce them.

    With class weight w and sample weight v, the weighted loss of sample i is ``w[y_i] * v_i * loss_i``. A batch whose
    divisor is exactly 0 (every weight 0) has loss 0 and gradient 0, where PyTorch's weighted mean is NaN.

    Args:
        losses: Loss of each sample, (B,).
        targets: Class of each sample, (B,), int64.
        class_weights: Weight of each class, (C,); None for 1.
        sample_weights: Weight of each sample, (B,); None for 1. Gradients flow through it.
        reduction: ``"batch"`` divides the sum of weighted losses by the sum of the sample weights (the batch size where
            there are none); ``"weight_sum"`` divides by the sum of ``w[y_i] * v_i``, PyTorch's weighted mean;
            ``"sum"`` does not divide; ``"none"`` returns the weighted losses.

    Returns:
        A scalar, or (B,) for ``"none"``.
    """
    samples = None if sample_weights is None else sample_weights.to(losses.dtype)
    classes = None if class_weights is None else class_weights.to(losses.dtype)[targets]
    both = samples if classes is None else classes if samples is None else classes * samples
    weighted = losses if both is None else losses * both
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    divisor = both if reduction == "weight_sum" else samples
    if divisor is None:
        return weighted.sum() / max(len(losses), 1)
    total = divisor.sum()
    return weighted.sum() / total.masked_fill(total == 0, 1)
