"""Weights of a run's experts, learnt on its unlabelled test images (SADE; Zhang et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from longtail.augment import Compose
from longtail.data import ImageSet, long_tail_indices
from longtail.errors import UsageError
from longtail.evaluation import ExpertAggregation, answering_expert, combine_experts
from longtail.methods.self_supervision import strong_view
from longtail.run import Run
from longtail.training.budget import augmentation_for
from longtail.training.inference import network_logits
from longtail.training.runtime import pick_device

EPOCHS = 5
"""Passes over the test images, each with views of its own; the authors' number."""


@dataclass(frozen=True)
class _Drawn:
    """Transforms whose draws go on from call to call, where a caller would start them anew."""

    transforms: Compose
    generator: torch.Generator

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.transforms(images, self.generator)


def aggregate_experts(
    run: Run, test: ImageSet, priors: Mapping[str, NDArray[np.float64]], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Learn weights of a run's experts for test sets of several class distributions, without their labels.

    Args:
        run: A finished run of several experts.
        test: The test images, uint8. Their labels cut them to a distribution and count what is right, no more.
        priors: Name of each distribution -> how often each class occurs in it, (C,).
        seed: Of views, order and choice of images.

    Returns:
        For each distribution ``images``, ``weights`` (E), ``mean_top1`` and ``weighted_top1`` (percent).

    Raises:
        UsageError: The run has one network, or a router that chooses the experts.
    """
    teacher = run.teacher()
    runtime = replace(run.runtime, device=str(pick_device("auto")), compile=False)
    network = teacher.to(runtime.device).network
    scale = _before_average(teacher.inference)
    views = strong_view(augmentation_for(run.task.name, run.task.mean, run.task.std, min(run.task.input_shape[1:])))
    generator = torch.Generator(runtime.device).manual_seed(seed)

    def experts(transforms: Compose) -> Tensor:
        logits: Tensor = scale(network_logits(network, test.images, transforms, runtime).cpu())
        return logits

    plain = experts(run.task.plain_transforms())
    if plain.ndim != 3 or plain.isnan().any() or answering_expert(plain, _rule(teacher.inference)(plain)) is not None:
        raise UsageError(
            f"{run.path} has no experts that answer together, so there is nothing to weigh",
            fix="leave --aggregate out, or train sade, ride or independent-experts",
        )
    chosen = {name: _subset(test, prior, seed) for name, prior in priors.items()}
    learners = {name: ExpertAggregation(len(plain), seed=seed) for name in chosen}
    for _ in range(EPOCHS):
        first, second = (experts(Compose((_Drawn(views, generator),))) for _ in range(2))
        for name, learner in learners.items():
            learner.epoch(first[:, chosen[name]], second[:, chosen[name]])
    return {name: _compared(plain[:, part], test.targets[part], learners[name]) for name, part in chosen.items()}


def _before_average(inference: nn.Module) -> nn.Module:
    """Return what an inference rule does to each expert before it makes one answer of all, such as LDAM's scale."""
    return inference[:-1] if isinstance(inference, nn.Sequential) else nn.Identity()


def _rule(inference: nn.Module) -> nn.Module:
    """Return what makes one answer of what `_before_average` left."""
    return inference[-1] if isinstance(inference, nn.Sequential) else inference


def _subset(test: ImageSet, prior: NDArray[np.float64], seed: int) -> Tensor:
    """Choose test images so that classes occur in proportion to the prior, one of each class that has any at least."""
    available = np.bincount(test.targets.numpy(), minlength=len(prior))
    wanted = (available.max() * prior / prior.max()).astype(int).clip(1)
    counts = np.minimum(wanted, available).tolist()
    return torch.from_numpy(np.sort(long_tail_indices(test.targets, counts, seed)))


def _compared(logits: Tensor, targets: Tensor, learner: ExpertAggregation) -> dict[str, Any]:
    def top1(answer: Tensor) -> float:
        return 100 * float((answer.argmax(1) == targets).double().mean())

    return {
        "images": len(targets),
        "weights": learner.weights.tolist(),
        "mean_top1": top1(logits.mean(0)),
        "weighted_top1": top1(combine_experts(logits, learner.weights)),
    }
