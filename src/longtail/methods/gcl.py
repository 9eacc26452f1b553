"""GCL: Gaussian clouded logit adjustment (Li, Cheung and Lu, CVPR 2022)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from longtail.augment import Mixup
from longtail.losses import GCLLoss
from longtail.methods.card import Card
from longtail.methods.inference import ScaleLogits
from longtail.methods.ldam import cosine_network
from longtail.methods.supervised import SupervisedObjective
from longtail.sampling import ClassBalancedSampling
from longtail.training.budget import Context
from longtail.training.recipe import SGD, Recipe, Schedule, Stage

CARD = Card(
    title="Gaussian clouded logit adjustment",
    paper="Li, Cheung and Lu, CVPR 2022",
    arxiv="2305.11733",
    idea="Lower the cosines by one-sided Gaussian noise, larger for rarer classes, which spreads their features; then "
    "go on with the classifier on class-balanced images.",
    use="A strong single model with long schedules; its mixup needs them.",
    cost="1x plus 5 %",
)

PUBLISHED = {"batch_size": 64, "decay": (0.1, 0.01)}


def gcl(
    context: Context,
    *,
    noise_mul: float = 0.5,
    s: float = 30.0,
    stage2_s: float = 20.0,
    stage2_margin: float = 0.1,
    stage2_epochs: int = 30,
    stage2_lr: float = 0.002,
    cached: bool | None = None,
) -> Recipe:
    """L = CE(s (cos_j - noise_mul |eps_j| delta_j - m onehot(y)), y), delta_j = log(n_max / n_j) / log(n_max / n_min).

    eps_j ~ N(0, 1/9) cut to [-1, 1], drawn for every sample and class; no noise at test time. Stage 1 trains everything
    with mixup and m = 0. Stage 2 goes on with the classifier under class-balanced sampling, with m, a smaller scale
    and the loss times 1 - p_y.

    Args:
        context: Class counts and budget.
        noise_mul: Size of the smallest class's cloud.
        s: Scale of the cosines in stage 1.
        stage2_s: Scale of the cosines in stage 2; the inference rule applies it too.
        stage2_margin: Margin m of stage 2.
        stage2_epochs: Epochs of stage 2.
        stage2_lr: Peak learning rate of stage 2.
        cached: Train stage 2 on features computed once, without mixup; default: everywhere but under ``published``.

    Raises:
        UsageError: A number of the loss is negative.
    """
    loss = partial(GCLLoss, context.class_counts, noise_mul=noise_mul)
    features = replace(context.stage(SupervisedObjective(loss(s=s)), name="features"), mixing=Mixup())
    if cached is None:
        cached = context.protocol != "published"
    classifier = Stage(
        name="classifier",
        objective=SupervisedObjective(loss(s=stage2_s, m=stage2_margin, gamma=1.0)),
        epochs=stage2_epochs,
        augment=context.plain if cached else context.augment,
        batch_size=context.budget.batch_size,
        optimizer=SGD(stage2_lr, context.budget.momentum, context.budget.weight_decay),
        schedule=Schedule(stage2_epochs, "cosine", warmup=0, milestones=(), decay=()),
        sampling=(ClassBalancedSampling(),),
        mixing=None if cached else Mixup(),
        trainable="head",
        batch_norm="eval",
        cached_features=cached,
    )
    return Recipe(stages=(features, classifier), network=cosine_network, inference=ScaleLogits(stage2_s))
