"""MiSLAS: mixup, label-aware smoothing and shifted batch norm (Zhong et al., CVPR 2021)."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

from longtail.losses import LabelAwareSmoothingLoss
from longtail.methods.card import Card
from longtail.methods.decoupling import features_first
from longtail.methods.mixup import mixup
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import LearnableScalingHead, LinearHead
from longtail.sampling import CyclicClassSampling
from longtail.training.budget import Context
from longtail.training.recipe import SGD, Recipe, Schedule, Stage

CARD = Card(
    title="Mixup shifted label-aware smoothing model",
    paper="Zhong et al., CVPR 2021",
    arxiv="2104.00466",
    idea="Features by mixup; then the classifier under class-balanced sampling with labels that are smoothed more the "
    "larger the class, and batch-norm statistics that follow the balanced images.",
    use="Where confidences matter: accuracy and calibration both gain. Needs a long first stage, because of mixup.",
    cost="1x plus 2 %",
)

PUBLISHED = {"decay": (0.1, 0.01)}
PUBLISHED_ON = {
    "imagenet-lt": {"epochs": 180, "batch_size": 256, "lr": 0.1},
    "inat18": {"epochs": 200, "batch_size": 256, "lr": 0.1},
}


class Settings(NamedTuple):
    """What the authors set by data set.

    Attributes:
        head: Smoothing of the largest class.
        tail: Smoothing of the smallest class.
        lr_factor: Factor of the learning rate of W and b.
        shift_bn: Whether batch-norm statistics follow the images of stage 2.
        alpha: Of mixup in stage 1.
    """

    head: float
    tail: float
    lr_factor: float
    shift_bn: bool
    alpha: float = 1.0


_LARGE = {
    "imagenet-lt": Settings(0.3, 0.0, 0.05, True, alpha=0.2),
    "inat18": Settings(0.3, 0.0, 0.05, True, alpha=0.2),
    "places-lt": Settings(0.4, 0.1, 0.05, True, alpha=0.2),
}
# The authors' configurations for CIFAR by imbalance factor.
_FEW_CLASSES = {
    10: Settings(0.1, 0.0, 0.2, False),
    50: Settings(0.2, 0.0, 0.2, False),
    100: Settings(0.3, 0.0, 0.5, False),
}
_MANY_CLASSES = {
    10: Settings(0.2, 0.0, 0.1, True),
    50: Settings(0.3, 0.0, 0.1, True),
    100: Settings(0.4, 0.1, 0.2, True),
}
_FEW = 31  # halfway between 10 and 100 classes on a logarithmic scale


def settings_for(dataset: str, class_counts: tuple[int, ...]) -> Settings:
    """Return the authors' settings of a large set, else of CIFAR-10 (up to 31 classes) or CIFAR-100 by imbalance.

    Between the factors 10, 50 and 100 they are interpolated on the logarithm of the factor, outside they are those of
    the nearest.
    """
    if dataset in _LARGE:
        return _LARGE[dataset]
    table = _FEW_CLASSES if len(class_counts) <= _FEW else _MANY_CLASSES
    present = [n for n in class_counts if n]
    factor = min(max(max(present) / min(present), min(table)), max(table))
    low = max(known for known in table if known <= factor)
    high = min(known for known in table if known >= factor)
    t = math.log(factor / low) / math.log(high / low) if high > low else 0.0
    a, b = table[low], table[high]
    head, tail, lr_factor = ((1 - t) * x + t * y for x, y in zip(a[:3], b[:3], strict=True))
    return Settings(head, tail, lr_factor, a.shift_bn)


def _scaled(head: nn.Module) -> nn.Module:
    assert isinstance(head, LinearHead)
    return LearnableScalingHead(head, freeze=False)


def mislas(
    context: Context,
    *,
    smooth_head: float | None = None,
    smooth_tail: float | None = None,
    lr_factor: float | None = None,
    shift_bn: bool | None = None,
    stage2_epochs: int = 10,
    stage2_lr: float = 0.1,
) -> Recipe:
    """Stage 1: cross-entropy with mixup. Stage 2: z_k = s_k (w_k . f + b_k), label-aware smoothing, class-balanced.

    The label of class y keeps 1 - eps_y, and eps_y is spread over all classes; eps grows with the class's size from
    ``smooth_tail`` to ``smooth_head`` by a sine. W and b go on from stage 1 at ``stage2_lr * lr_factor``, s learns at
    ``stage2_lr``.

    Args:
        context: Class counts and budget.
        smooth_head: Smoothing of the largest class; default by data set, see `settings_for`.
        smooth_tail: Smoothing of the smallest class; default likewise.
        lr_factor: Learning rate of W and b relative to that of s; default likewise.
        shift_bn: Let batch-norm statistics follow the balanced images; default likewise.
        stage2_epochs: Epochs of stage 2; 10 in the paper.
        stage2_lr: Peak learning rate of stage 2.

    Raises:
        UsageError: A smoothing is not in [0, 1].
    """
    known = settings_for(context.dataset, context.class_counts)
    loss = LabelAwareSmoothingLoss(
        context.class_counts,
        head=known.head if smooth_head is None else smooth_head,
        tail=known.tail if smooth_tail is None else smooth_tail,
    )
    factor = known.lr_factor if lr_factor is None else lr_factor
    budget = context.budget
    stage = Stage(
        name="classifier",
        objective=SupervisedObjective(loss),
        epochs=stage2_epochs,
        augment=context.augment,
        batch_size=budget.batch_size,
        optimizer=SGD(stage2_lr, budget.momentum, budget.weight_decay, lr_scales=(("head.linear.", factor),)),
        schedule=Schedule(stage2_epochs, "cosine", warmup=0, milestones=(), decay=()),
        sampling=(CyclicClassSampling(4),),
        trainable="head",
        batch_norm="train" if (known.shift_bn if shift_bn is None else shift_bn) else "eval",
        new_head=_scaled,
    )
    return mixup(features_first(context, stage), context, alpha=known.alpha)
