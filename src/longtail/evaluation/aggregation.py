"""Weights of experts found on unlabelled test images (SADE; Zhang et al., NeurIPS 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def combine_experts(expert_logits: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of experts' logits, (N, C), of (E, N, C) and weights (E,)."""
    return torch.einsum("e,enc->nc", weights.to(expert_logits.dtype), expert_logits)


def prediction_stability(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Mean cosine between the class probabilities of two views of the same images: what SADE's aggregation raises.

    Args:
        first: Expert logits of one view, (E, N, C).
        second: Those of the other.
        weights: Weights of the experts, (E,).

    Returns:
        Scalar in [0, 1].
    """
    one, other = (combine_experts(logits, weights).softmax(-1) for logits in (first, second))
    return F.cosine_similarity(one, other, dim=-1).mean()


class ExpertAggregation:
    """Learns how much to trust each expert on a test set whose class frequencies are unknown.

    An expert that is right about the classes that occur predicts alike on two augmented views of an image. So the
    weights a = softmax(w) are trained for stability, mean cos(softmax(sum_e a_e z_e), softmax(sum_e a_e z'_e)), over
    batches of unlabelled test images; the networks stay as they are. It is transductive: report it apart from results
    that look at one image at a time.

    Args:
        experts: Number of experts E; the weights start equal.
        lr: Learning rate of w; the authors take that of the training, 0.1 on CIFAR.
        momentum: Nesterov momentum, as in the authors' training.
        weight_decay: L2 penalty on w, likewise.
        batch_size: Images per step.
        floor: Learning stops after an epoch that leaves a weight, rounded to two decimals, below this.
        seed: Of the order of the images.

    Raises:
        ValueError: There is no expert.

    Source: github.com/Vanint/SADE-AgnosticLT, test_training_cifar.py.
    """

    def __init__(
        self,
        experts: int,
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        batch_size: int = 128,
        floor: float = 0.05,
        seed: int = 0,
    ) -> None:
        if experts < 1:
            raise ValueError(f"ExpertAggregation: needs one expert or more, got {experts}")
        self.batch_size = batch_size
        self.floor = floor
        self.stopped = False
        self._w = torch.full((experts,), 1 / experts, dtype=torch.float64, requires_grad=True)
        nesterov = momentum > 0
        self._optimizer = torch.optim.SGD(
            [self._w], lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def weights(self) -> Tensor:
        """The weights as they are, (E,), float64, summing to 1."""
        return self._w.detach().softmax(0)

    def epoch(self, first: Tensor, second: Tensor) -> None:
        """Pass once over the images; does nothing once learning has stopped.

        Args:
            first: Expert logits of one view of the images, (E, N, C).
            second: Those of another view; the authors draw both anew for each of 5 epochs.

        Raises:
            ValueError: The two differ in shape, or have another number of experts.
        """
        if first.shape != second.shape or first.ndim != 3 or len(first) != len(self._w):
            raise ValueError(
                f"ExpertAggregation: needs two views ({len(self._w)}, N, C) of the same images, "
                f"got {tuple(first.shape)} and {tuple(second.shape)}"
            )
        if self.stopped:
            return
        order = torch.randperm(first.shape[1], generator=self._generator)
        for part in torch.split(order, self.batch_size):
            self._step(first[:, part].double(), second[:, part].double())
        self.stopped = bool((self.weights.mul(100).round() / 100 < self.floor).any())

    def _step(self, first: Tensor, second: Tensor) -> None:
        loss = -prediction_stability(first, second, self._w.softmax(0))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
