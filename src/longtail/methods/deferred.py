"""Deferred re-weighting and re-sampling (Cao et al., NeurIPS 2019): plain training first, balance at the end."""

from __future__ import annotations

import copy
from dataclasses import replace

from longtail.errors import UsageError
from longtail.losses import effective_number_weights
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.sampling import ClassBalancedSampling, InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import Prepared, Recipe, Stage

DRW_CARD = Card(
    title="Deferred re-weighting",
    paper="Cao et al., NeurIPS 2019",
    arxiv="1906.07413",
    idea="Train plainly until the learning rate first drops, then weigh classes by their effective number: the late, "
    "small steps mostly move the classifier, and the features stay good.",
    use="On nearly every loss; almost always better than weights from the start.",
)
DRS_CARD = Card(
    title="Deferred re-sampling",
    paper="Cao et al., NeurIPS 2019",
    arxiv="1906.07413",
    idea="Train plainly until the learning rate first drops, then draw every class equally often.",
    use="As deferred re-weighting; gentler on rare classes with noisy images.",
)


def one_stage(recipe: Recipe, modifier: str) -> Stage:
    """Return the only stage, or say why deferring makes no sense."""
    if len(recipe.stages) != 1:
        raise UsageError(
            f"+{modifier} does not fit a recipe that already rebalances in a later stage "
            f"({' -> '.join(stage.name for stage in recipe.stages)})",
            fix=f"use +{modifier} on a one-stage method such as ce, ldam or bsce, and once only",
        )
    stage = recipe.stages[0]
    if stage.sampling != (InstanceSampling(),):
        raise UsageError(
            f"+{modifier} defers balancing, but this method samples by class from the first epoch",
            fix=f"use ce+{modifier}",
        )
    if isinstance(stage.objective, Prepared):
        raise UsageError(
            f"+{modifier} cuts the training in two, and this method's objective would begin anew at the cut",
            fix=f"use ce+{modifier}",
        )
    return stage


def refuse_balanced(objective: SupervisedObjective, modifier: str) -> None:
    """Say that a modifier which balances samples would balance twice, where the loss balances already."""
    criterion = objective.criterion
    if criterion.class_weights is not None or criterion.balances:
        raise UsageError(
            f"+{modifier} would balance twice: this method's loss balances already", fix=f"use ce+{modifier}"
        )


def switch_epoch(epochs: int, start: float) -> int:
    """Return the 0-based epoch at a share ``start`` of ``epochs``.

    Raises:
        UsageError: The share is not between 0 and 1, or leaves no epoch before or after the switch.
    """
    if not 0 < start < 1:
        raise UsageError(f"start is {start}; it must lie between 0 and 1 (the share of epochs before the switch)")
    switch = round(start * epochs)
    if not 0 < switch < epochs:
        raise UsageError(
            f"{epochs} {'epoch leaves' if epochs == 1 else 'epochs leave'} no room for a switch at {start:.0%} of the "
            "training",
            fix="use more epochs",
        )
    return switch


def split(stage: Stage, start: float) -> tuple[Stage, Stage]:
    """Cut a stage in two at a share of its epochs, see `switch_epoch`; optimiser and schedule run on."""
    first = switch_epoch(stage.epochs, start)
    late = replace(
        stage, name="deferred", epochs=stage.epochs - first, first_epoch=first, continues=True, new_head=None
    )
    return replace(stage, epochs=first), late


def drw(recipe: Recipe, context: Context, *, beta: float = 0.9999, start: float = 0.8) -> Recipe:
    """From 80 % of the epochs on, weigh classes by w_c ~ (1 - beta) / (1 - beta^n_c), sum w = C.

    The weighted mean divides by the sum of the batch's weights (torch's convention, as in the official code). At 200
    epochs the switch is at epoch index 160, the first drop of the published schedule.

    Args:
        recipe: A one-stage recipe whose loss has no class weights yet.
        context: Class counts.
        beta: Of the effective number; 0.9999 in the official code.
        start: Share of the epochs before the switch.

    Raises:
        UsageError: The recipe has several stages, samples by class or weighs classes already.
    """
    stage = one_stage(recipe, "drw")
    objective = stage.objective
    if not isinstance(objective, SupervisedObjective):
        raise UsageError(
            "+drw weighs the classes of one classification loss, and this method has an objective of its own",
            fix="use ce+drw or focal+drw",
        )
    if objective.criterion.class_weights is not None:
        raise UsageError(
            "+drw defers class weights, but this method weighs classes from the first epoch",
            fix="use ce+drw or focal+drw",
        )
    early, late = split(stage, start)
    weighted = copy.deepcopy(objective)
    weighted.criterion = objective.criterion.with_class_weights(
        effective_number_weights(context.class_counts, beta), reduction="weight_sum"
    )
    return recipe.with_stages(early, replace(late, objective=weighted))


def drs(recipe: Recipe, context: Context, *, start: float = 0.8) -> Recipe:
    """From 80 % of the epochs on, draw classes uniformly.

    Args:
        recipe: A one-stage recipe with plain sampling.
        context: Not used.
        start: Share of the epochs before the switch.

    Raises:
        UsageError: The recipe has several stages, samples by class already, or has a loss that balances.
    """
    stage = one_stage(recipe, "drs")
    if isinstance(stage.objective, SupervisedObjective):
        refuse_balanced(stage.objective, "drs")
    early, late = split(stage, start)
    return recipe.with_stages(early, replace(late, sampling=(ClassBalancedSampling(),)))
