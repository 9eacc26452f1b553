"""What pictures need from a trained run beside its metrics: features of images and the classifier over them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from longtail import data as datasets
from longtail.data import ImageSet, LongTailData
from longtail.errors import UsageError
from longtail.networks import CosineHead, ExpertHead, LearnableScalingHead, LinearHead, RoutedHead, TauNormHead
from longtail.networks.bilateral import BilateralHead
from longtail.networks.residual_branches import ResidualBranches
from longtail.run import Run
from longtail.training.inference import extract_features
from longtail.training.runtime import Runtime

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """A trained classifier that is linear in the features: class k's score is ``weight[k] . f + bias[k]``.

    Attributes:
        weight: (C, d); of a cosine classifier its directions.
        bias: (C,).
        cosine: Whether features are divided by their norm first.
    """

    weight: Floats
    bias: Floats
    cosine: bool = False


def data_of(run: Run, root: str | Path | None = None) -> LongTailData:
    """Load the data set of a run with the subset that it was trained on."""
    config = run.config
    return datasets.load(
        config.source or config.dataset,
        imbalance=config.imbalance,
        profile=config.profile,
        subset_seed=config.subset_seed,
        root=root,
        dev_per_class=config.dev_per_class,
        image_size=config.image_size,
    )


def classifier_of(run: Run, expert: int = 1) -> Classifier:
    """Return the trained classifier of a run, or that of one of its experts, over the features of `class_features`.

    Args:
        run: A finished run.
        expert: 1-based number of the expert; a single network is expert 1.

    Raises:
        UsageError: There is no such expert, or its classifier is not linear in the features.
    """
    head = run.network.head
    head = getattr(head, "experts", head)  # routers stand over the experts' heads
    heads = list(head.heads) if isinstance(head, ExpertHead) else [head]
    if not 1 <= expert <= len(heads):
        raise UsageError(f"{run.path} has {len(heads)} expert(s); there is no expert {expert}")
    found = _linear(heads[expert - 1], run)
    body = run.network.backbone
    # ResLT adds what its branches say: W f_1 + b + W f_2 + b + ... = W (f_1 + f_2 + ...) + E b.
    return replace(found, bias=len(body.norms) * found.bias) if isinstance(body, ResidualBranches) else found


def _linear(head: nn.Module, run: Run) -> Classifier:
    factor = torch.ones(1)
    if isinstance(head, LearnableScalingHead):
        factor, head = head.scale, head.linear
    if isinstance(head, CosineHead):
        weight = torch.nn.functional.normalize(head.weight, dim=1)
        return Classifier(_array(weight), np.zeros(len(weight)), cosine=True)
    if isinstance(head, LinearHead | TauNormHead):
        bias = torch.zeros_like(head.weight[:, 0]) if head.bias is None else head.bias
        return Classifier(_array(factor.view(-1, 1) * head.weight), _array(factor * bias))
    raise UsageError(
        f"{run.path} ({run.config.method}) has a classifier that is not linear in the features ({type(head).__name__})",
        fix="take a run of crt, mislas, gcl or ride, with or without +h2t",
    )


def class_features(run: Run, images: ImageSet, classes: NDArray[np.int64], expert: int = 1) -> tuple[Floats, Any]:
    """Return the features of all images of some classes, normalised where the classifier is a cosine one.

    Args:
        run: A finished run. Of BBN the features of both branches side by side, of ResLT the sum of those of its
            branches.
        images: A set of its data, not augmented.
        classes: The classes, (K,).
        expert: 1-based number of the expert, where each has a classifier of its own.

    Returns:
        Features, (N, d), float64, and classes, (N,), int64.
    """
    wanted = torch.isin(images.targets, torch.as_tensor(classes))
    runtime = Runtime(threads=torch.get_num_threads())
    features = extract_features(run.network, images.images[wanted], run.task.plain_transforms(), runtime)
    own = _array(_of_one_classifier(features, run.network.head, expert))
    if classifier_of(run, expert).cosine:
        own = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    return own, images.targets[wanted].numpy()


def _of_one_classifier(features: torch.Tensor, head: nn.Module, expert: int) -> torch.Tensor:
    """Return the features that a classifier reads, (N, d'), of features (N, d) or (E, N, d)."""
    if features.ndim == 2:
        return features
    if isinstance(head, ExpertHead | RoutedHead):
        return features[expert - 1]
    return torch.cat(tuple(features), -1) if isinstance(head, BilateralHead) else features.sum(0)


def _array(tensor: torch.Tensor) -> Floats:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
