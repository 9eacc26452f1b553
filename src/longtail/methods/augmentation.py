"""What the modifiers that change images one by one share: where the change goes in a recipe."""

from __future__ import annotations

from dataclasses import replace

from longtail.augment import AutoAugment, Compose, Normalize, RandAugment, Transform
from longtail.errors import UsageError
from longtail.training.recipe import Recipe, Stage


def augmented(recipe: Recipe, modifier: str, *changes: Transform) -> Recipe:
    """Return a recipe whose stages that train the backbone change their images, after crop and flip.

    Where a stage compares several views, the first is changed.

    Args:
        recipe: Any recipe.
        modifier: Name of the modifier, for messages.
        changes: Transforms of whole uint8 images, in their order.

    Raises:
        UsageError: The recipe has such changes already.
    """
    if any(isinstance(t, AutoAugment | RandAugment) for stage in recipe.stages for t in stage.augment.transforms):
        raise UsageError(f"+{modifier} does not fit a recipe that draws operations from a list already", fix="use one")
    stages = tuple(
        _with(stage, changes) if stage.epochs and stage.trainable == "all" else stage for stage in recipe.stages
    )
    return recipe.with_stages(*stages)


def _with(stage: Stage, changes: tuple[Transform, ...]) -> Stage:
    *before, last = stage.augment.transforms
    assert isinstance(last, Normalize)
    return replace(stage, augment=Compose((*before, *changes, last)))
