"""Frozen-feature mode: any recipe whose stages need nothing but features, on features that are computed once."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from longtail.errors import UsageError
from longtail.networks import build_network
from longtail.training.budget import Context
from longtail.training.inference import HeadView
from longtail.training.recipe import Measured, Prepared, Recipe, Shape, Stage, enter_structure
from longtail.types import Batch, Progress

_FIX = (
    "leave --freeze-backbone out (LongTailClassifier: fit images), or use a method that trains a classifier: bsce, "
    "ldam+drw, crt, lws, tau-norm, ncm"
)


def frozen(recipe: Recipe, method: str, context: Context) -> Recipe:
    """Return a recipe whose stages all train the head on stored features of a backbone that stays as it begins.

    Images are seen once, without augmentation; batch norm is in evaluation mode throughout.

    Args:
        recipe: Any recipe.
        method: Its name, for messages.
        context: What the recipe was built for.

    Raises:
        UsageError: A stage needs images: it mixes them or augments them in its own way, looks at further views or the
            development set, or learns from networks; or the network is not a backbone with a head.
    """
    if getattr(recipe.network, "func", recipe.network) is not build_network:
        raise UsageError(
            f"{method} does not work on fixed features: it builds a network of several experts or branches, which "
            "would all have the same features",
            fix=_FIX,
        )
    for stage in recipe.stages:
        reason = _obstacle(stage, context)
        if reason:
            raise UsageError(f"{method} does not work on fixed features: its stage {stage.name!r} {reason}", fix=_FIX)
    changed = recipe.with_stages(*(_on_features(stage, context) for stage in recipe.stages))
    _try(changed, method, context.num_classes)
    return changed


def _obstacle(stage: Stage, context: Context) -> str:
    """Return what a stage needs beside features; an empty string for nothing."""
    own_augmentation = bool(stage.epochs) and stage.augment not in (context.augment, context.plain)
    obstacles = {
        "augments images in its own way": own_augmentation,
        f"mixes images ({type(stage.mixing).__name__})": stage.mixing is not None,
        "compares several views of an image": bool(stage.views),
        "looks at images of the development set": bool(stage.dev),
        "begins with a new network": stage.new_network is not None,
        "needs a network or the training images before it begins": isinstance(stage.objective, Prepared | Measured),
    }
    return next((reason for reason, holds in obstacles.items() if holds), "")


def _on_features(stage: Stage, context: Context) -> Stage:
    if stage.objective is None:
        return stage
    scales = tuple(pair for pair in stage.optimizer.lr_scales if pair[0].startswith("head"))
    return replace(
        stage,
        augment=context.plain,
        optimizer=replace(stage.optimizer, lr_scales=scales),
        trainable="head",
        batch_norm="eval",
        cached_features=True,
    )


def _try(recipe: Recipe, method: str, num_classes: int) -> None:
    """Call each objective once, on made-up features: only that shows whether it looks behind them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = Shape("small", num_classes, 1)
        network = recipe.network(*shape)
        targets = torch.arange(8) % num_classes
        for stage in recipe.stages:
            network = enter_structure(network, stage, shape)
            if stage.objective is None:
                continue
            features = torch.randn(len(targets), network.num_features)
            batches = (Batch(features, targets, torch.arange(len(targets))),) * len(stage.sampling)
            objective = copy.deepcopy(stage.objective)
            try:
                objective(HeadView(network), batches, Progress(stage.first_epoch, stage.schedule.epochs))
            except Exception as error:  # whatever it reaches for, it is not there
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise UsageError(
                    f"{method} does not work on fixed features: stage {stage.name!r} needs more than features "
                    f"({reason})",
                    fix=_FIX,
                ) from error
