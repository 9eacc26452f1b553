"""What the decoupled methods of Kang et al. (ICLR 2020) share: features first, then the classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from longtail.losses import CrossEntropyLoss
from longtail.methods.ce import ce
from longtail.methods.supervised import SupervisedObjective
from longtail.sampling import ClassBalancedSampling, CyclicClassSampling
from longtail.training.budget import Context, budget_for
from longtail.training.recipe import SGD, Recipe, Schedule, Stage


def features_first(context: Context, *stages: Stage) -> Recipe:
    """Return cross-entropy training followed by the given classifier stages."""
    recipe = ce(context)
    return recipe.with_stages(replace(recipe.stages[0], name="features"), *stages)


def classifier_stage(
    context: Context,
    new_head: Callable[[nn.Module], nn.Module] | None,
    *,
    epochs: int | None,
    lr: float | None,
    cached: bool | None,
    large_epochs: int,
    large_in_a_row: int = 4,
) -> Stage:
    """Return the class-balanced training of a new head on frozen features.

    Under ``published`` it sees augmented images, and batch-norm statistics keep moving under the frozen backbone (the
    authors' code does so too). On CIFAR it has the schedule of the bag-of-tricks code: 30 epochs, lr x 0.1 after 10 and
    20, warm-up 5, weight decay 5e-4, Nesterov. On the large sets it has the authors' own: a cosine with batch, rate and
    weight decay of their first stage, and classes drawn in turn. Otherwise the features are computed once, without
    augmentation, and the head trains on them by a cosine.

    Args:
        context: Class counts and budget.
        new_head: Makes the head of this stage from the trained one; None keeps that.
        epochs: Epochs; None: 30, or ``large_epochs``.
        lr: Peak learning rate; None: 0.1, or that of the authors' first stage.
        cached: Whether to train on cached features; None: everywhere but under ``published``.
        large_epochs: Epochs that the authors take on a large set.
        large_in_a_row: Images of a class in a row that their sampler gives there.
    """
    large = context.protocol == "published" and not context.on_cifar
    authors = budget_for(context.dataset, "published") if large else None
    if cached is None:
        cached = context.protocol != "published"
    if epochs is None:
        epochs = 30 if authors is None else large_epochs
    optimizer = SGD(lr=0.1, weight_decay=5e-4, nesterov=True) if authors is None else authors.sgd()
    if cached or authors is not None:
        schedule = Schedule(epochs, "cosine", warmup=0, milestones=(), decay=())
    else:
        milestones = tuple(max(round(epochs * k / 3), 1) for k in (1, 2))
        schedule = Schedule(epochs, "step", warmup=min(5, epochs - 1), milestones=milestones, decay=(0.1, 0.01))
    return Stage(
        name="classifier",
        objective=SupervisedObjective(CrossEntropyLoss(context.class_counts)),
        epochs=epochs,
        augment=context.plain if cached else context.augment,
        batch_size=context.budget.batch_size if authors is None else authors.batch_size,
        optimizer=optimizer if lr is None else replace(optimizer, lr=lr),
        schedule=schedule,
        sampling=(ClassBalancedSampling() if authors is None else CyclicClassSampling(large_in_a_row),),
        trainable="head",
        batch_norm="eval" if cached else "train",
        cached_features=cached,
        new_head=new_head,
    )


def warm_stage(context: Context, *, epochs: int | None, lr: float | None, cached: bool | None) -> Stage:
    """Return the class-balanced training of the head that is there, as in the code of H2T.

    Against `classifier_stage` it is shorter and gentler, since the classifier does not start from nothing: 10 epochs
    of a cosine from 0.02, plain momentum. The code has no setting for the large sets.

    Args:
        context: Class counts and budget.
        epochs: Epochs; None: 10.
        lr: Peak learning rate; None: 0.02.
        cached: Whether to train on cached features; None: everywhere but under ``published``.
    """
    epochs, lr = 10 if epochs is None else epochs, 0.02 if lr is None else lr
    stage = classifier_stage(context, None, epochs=epochs, lr=lr, cached=cached, large_epochs=epochs)
    schedule = Schedule(epochs, "cosine", warmup=0, milestones=(), decay=())
    optimizer = replace(stage.optimizer, nesterov=False)
    return replace(
        stage,
        batch_size=context.budget.batch_size,
        optimizer=optimizer,
        schedule=schedule,
        sampling=(ClassBalancedSampling(),),
    )


def fitted_stage(
    context: Context,
    name: str,
    new_head: Callable[[nn.Module], nn.Module],
    fit: Callable[[nn.Module, Tensor, Tensor], None] | None = None,
) -> Stage:
    """Return a stage that replaces the head without training, and fits it in closed form where ``fit`` is given."""
    return Stage(
        name=name,
        objective=None,
        epochs=0,
        augment=context.plain,
        batch_size=context.budget.batch_size,
        new_head=new_head,
        fit=fit,
    )
