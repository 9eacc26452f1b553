"""What the modifiers that mix images share: where mixing goes in a recipe, and what it does not go with."""

from __future__ import annotations

from dataclasses import replace

from longtail.augment import Mixing
from longtail.errors import UsageError
from longtail.sampling import Sampling
from longtail.training.recipe import Recipe, Stage


def mix_features(recipe: Recipe, modifier: str, mixing: Mixing, *streams: Sampling) -> Recipe:
    """Return a recipe whose feature-training stages mix images.

    Classifier stages on a frozen backbone stay as they are: mixing there does not help (MiSLAS).

    Args:
        recipe: Any recipe that does not mix yet.
        modifier: Name of the modifier, for messages and for the name of the first stage.
        mixing: The mixing.
        streams: Index streams that the mixing takes beside the stage's own.

    Raises:
        UsageError: The recipe mixes images already, compares views of one image, makes images itself, or has several
            streams of its own where the mixing needs one.
    """
    for stage in filter(_trains_features, recipe.stages):
        if stage.mixing is not None:
            raise UsageError(
                f"+{modifier} does not fit a recipe that mixes images already (by {type(stage.mixing).__name__}, "
                f"in stage {stage.name!r})",
                fix="use one kind of mixing",
            )
        if stage.dev:
            raise UsageError(
                f"+{modifier} mixes images, but stage {stage.name!r} learns from a development set what each is worth",
                fix=f"use +{modifier} on a method without development set",
            )
        if stage.views:
            raise UsageError(
                f"+{modifier} mixes images, and stage {stage.name!r} compares two views of one image",
                fix="leave the modifier out, or choose --task rotation",
            )
        if not getattr(stage.objective, "takes_mixed", True):
            raise UsageError(
                f"+{modifier} mixes images, and stage {stage.name!r} needs images of one class each",
                fix=f"use +{modifier} on another method",
            )
        if streams and len(stage.sampling) > 1:
            raise UsageError(f"+{modifier} adds an index stream, but stage {stage.name!r} has branches of its own")
    stages = tuple(
        replace(stage, mixing=mixing, sampling=(*stage.sampling, *streams)) if _trains_features(stage) else stage
        for stage in recipe.stages
    )
    return recipe.with_stages(*stages)


def _trains_features(stage: Stage) -> bool:
    return bool(stage.epochs) and stage.trainable == "all"
