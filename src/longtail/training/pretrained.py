"""Recipes whose networks begin with pretrained weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

from longtail.networks import initial_weights, starting_from
from longtail.networks.weights import NO_WEIGHTS
from longtail.training.recipe import Recipe


def from_weights(recipe: Recipe, backbone: str, weights: str, *, fresh: bool) -> Recipe:
    """Return a recipe whose first network, and every new one, begins with pretrained weights, read once when needed.

    Args:
        recipe: Any recipe.
        backbone: Name of the backbone.
        weights: As for `longtail.networks.initial_weights`; ``none`` changes nothing.
        fresh: Whether the run begins now; the first network of a resumed one gets its weights from its state.
    """
    if weights == NO_WEIGHTS:
        return recipe
    read = cache(partial(initial_weights, backbone, weights))
    stages = (
        stage if stage.new_network is None else replace(stage, new_network=starting_from(stage.new_network, read))
        for stage in recipe.stages
    )
    network = starting_from(recipe.network, read) if fresh else recipe.network
    return replace(recipe, stages=tuple(stages), network=network)
