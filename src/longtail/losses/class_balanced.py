"""Class-balanced loss (Cui et al., CVPR 2019): a loss weighted by the inverse effective number of samples."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from longtail.losses.base import ClassCountLoss
from longtail.losses.checks import ClassCounts, check_choice, check_number
from longtail.losses.class_weights import effective_number_weights
from longtail.losses.cross_entropy import cross_entropy_loss
from longtail.losses.focal import sigmoid_focal_loss
from longtail.losses.reduction import Reduction

CBForm = Literal["softmax", "sigmoid", "focal"]


def class_balanced_loss(logits: Tensor, targets: Tensor, form: CBForm, gamma: float, class_weights: Tensor) -> Tensor:
    """Class-balanced loss of each sample: the weight of its label times its softmax, sigmoid or focal loss.

    Args:
        logits: (B, C).
        targets: Class indices, (B,), int64.
        form: ``"softmax"`` (cross-entropy), ``"sigmoid"`` (binary cross-entropy summed over classes) or ``"focal"``
            (sigmoid focal loss summed over classes).
        gamma: Focusing exponent, only for ``"focal"``.
        class_weights: From `effective_number_weights`, (C,).

    Returns:
        Weighted losses, (B,), float32 or float64. The authors divide their sum by B.
    """
    losses = _form_losses(logits, targets, form, gamma)
    return losses * class_weights.to(losses.dtype)[targets]


def _form_losses(logits: Tensor, targets: Tensor, form: CBForm, gamma: float) -> Tensor:
    if form == "softmax":
        return cross_entropy_loss(logits, targets)
    return sigmoid_focal_loss(logits, targets, gamma if form == "focal" else 0.0)


class CBLoss(ClassCountLoss):
    """Class-balanced softmax, sigmoid or focal loss (Cui et al., CVPR 2019).

    The class weights are `effective_number_weights` of the counts; `with_class_weights` replaces them. A class without
    images has weight 0; with equal counts or ``beta=0`` every weight is 1. For the sigmoid and focal forms start the
    last layer's bias at ``-log(C - 1)``.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        beta: In [0, 1]; the paper's CIFAR-10 value 0.9999 is the default, CIFAR-100 mostly used 0.9.
        form: ``"softmax"``, ``"sigmoid"`` or ``"focal"`` (on sigmoids).
        gamma: Focusing exponent of the focal form, >= 0. The paper chose from 0.5, 1 and 2; on CIFAR mostly 1.
        reduction: ``"batch"`` is the authors' TensorFlow code; PyTorch ports of the softmax form have
            ``"weight_sum"``, whose steps are several times larger.

    Raises:
        ValueError: If an argument breaks these rules.

    Source:
        https://github.com/richardaecn/class-balanced-loss (src/cifar_main.py).
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        beta: float = 0.9999,
        form: CBForm = "softmax",
        gamma: float = 1.0,
        *,
        reduction: Reduction = "batch",
    ) -> None:
        weights = effective_number_weights(class_counts, beta)
        super().__init__(class_counts, class_weights=weights, reduction=reduction)
        check_choice("form", form, get_args(CBForm))
        self.beta = float(beta)
        self.form: CBForm = form
        self.gamma = check_number("gamma", gamma, 0)

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample before its class weight, (B,)."""
        return _form_losses(logits, targets, self.form, self.gamma)

    def extra_repr(self) -> str:
        """Describe the hyper-parameters."""
        gamma = f", gamma={self.gamma}" if self.form == "focal" else ""
        return f"beta={self.beta}, form={self.form!r}{gamma}, {super().extra_repr()}"
