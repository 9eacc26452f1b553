"""Learning from a teacher's probabilities (Hinton et al. 2015), and what He et al. (DiVE, ICCV 2021) make of them.

A teacher that gives an image the probabilities t has seen, so to speak, t_c examples of class c in it: its *virtual
examples*. Their sums over the training set are the distribution that a student learns from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.base import upcast


def soft_targets(logits: Tensor, temperature: float | Tensor = 1.0, power: float | Tensor = 1.0) -> Tensor:
    """Teacher's probabilities, flattened: ``t_c = softmax(z / T)_c^p / sum_k softmax(z / T)_k^p = softmax(p z / T)_c``.

    The power normalisation of DiVE (p = 0.5) is thus a division of the temperature by p, and computed as such: no
    probability underflows before its root is taken.

    Args:
        logits: The teacher's, (..., C).
        temperature: T > 0; 3 in DiVE, 2 in SSD.
        power: p > 0; 1 leaves the normalisation out.

    Returns:
        Probabilities, (..., C), float32 or float64.
    """
    return (upcast(logits) * (power / temperature)).softmax(-1)


def flatten_probabilities(
    probabilities: Tensor, temperature: float | Tensor = 1.0, power: float | Tensor = 1.0
) -> Tensor:
    """Temperature and power normalisation of given probabilities: ``t_c^(p / T) / sum_k t_k^(p / T)``.

    For the softmax of logits it equals `soft_targets` of these. A probability of 0 stays 0.

    Args:
        probabilities: (..., C), each row sums to 1.
        temperature: T > 0.
        power: p > 0.
    """
    # Relative to the largest, which stays 1: raised to a large power, a whole row of probabilities would underflow.
    raised = (probabilities / probabilities.amax(-1, keepdim=True)).pow(power / temperature)
    return raised / raised.sum(-1, keepdim=True)


def distillation_loss(logits: Tensor, targets: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Distillation loss of each sample: ``T^2 KL(t || s) = T^2 sum_c t_c (log t_c - log s_c)``, s = softmax(z / T).

    T^2 keeps the gradient's size as T grows. For the logits, KL and cross-entropy against t have the same gradient.

    Args:
        logits: The student's, (B, C).
        targets: The teacher's probabilities, (B, C), such as from `soft_targets`; a class may have probability 0.
        temperature: T > 0, of the student.

    Returns:
        Losses, (B,), float32 or float64.

    Raises:
        ValueError: The two shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"distillation_loss: targets must have the logits' shape {tuple(logits.shape)}, got {tuple(targets.shape)}"
        )
    log_student = (upcast(logits) / temperature).log_softmax(-1)
    losses: Tensor = (torch.xlogy(targets, targets) - targets * log_student).sum(-1)
    return losses * temperature**2


def virtual_examples(logits: Tensor, temperature: float = 1.0, power: float = 1.0) -> Tensor:
    """Virtual examples of each class: ``V_c = sum over images of t_c``, so that ``sum_c V_c = N``.

    Args:
        logits: A teacher's logits of the training images, (N, C).
        temperature: Of `soft_targets`.
        power: Of `soft_targets`.

    Returns:
        Virtual examples, (C,), float64.
    """
    return soft_targets(logits.double(), temperature, power).sum(0)
