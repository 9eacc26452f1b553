"""Independent experts and test-average: whole networks that never meet in training and answer together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.methods.bsce import bsce
from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.methods.deferred import drw as deferred_weights
from longtail.methods.inference import AverageExperts, PickExpert, ScaleLogits
from longtail.methods.ldam import ldam
from longtail.methods.mixup import mixup
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import CosineHead, LinearHead, build_expert_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe, Stage
from longtail.types import Batch, Progress

CARD = Card(
    title="Independent experts with test-average",
    paper="Q. Zhang, Nanjing University of Aeronautics and Astronautics, talk 2021",
    arxiv="",
    idea="Every expert sees the whole long-tailed set and learns without any tie to the others; what differs between "
    "separate trainings is diversity enough. The test averages their answers.",
    use="When three times the cost is affordable: a dependable gain over one network. No gain in speed or size.",
    cost="3x, at the test too",
)

BASES: dict[str, tuple[Callable[..., Recipe], Callable[[int, int], nn.Module]]] = {
    "ldam": (ldam, CosineHead),
    "ce": (ce, LinearHead),
    "bsce": (bsce, LinearHead),
}


class IndependentExperts(nn.Module):
    """The sum of the experts' losses, each on a batch of its own, so that no gradient passes between them.

    Args:
        objective: What each expert minimises.
        joint: One loss on the mean of the logits instead (the collaborative loss of RIDE's paper); needs one batch.
    """

    def __init__(self, objective: SupervisedObjective, *, joint: bool = False) -> None:
        super().__init__()
        self.objective = objective
        self.joint = joint

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of a batch for each expert, or of one batch for all; ``progress`` is not used."""
        one_for_all = len(batches) == 1
        images = batches[0].images if one_for_all else torch.stack([batch.images for batch in batches])
        logits: Tensor = network(images)
        if self.joint:
            return self.objective.loss(logits.mean(0), batches[0])
        own = batches * len(logits) if one_for_all else batches
        losses = [self.objective.loss(each, batch) for each, batch in zip(logits, own, strict=True)]
        return torch.stack(losses).sum()

    def extra_repr(self) -> str:
        """Say whether the loss is one for all."""
        return f"joint={self.joint}"


def independent_experts(
    context: Context,
    *,
    experts: int = 3,
    base: Literal["ldam", "ce", "bsce"] = "ldam",
    mixup_alpha: float = 1.0,
    drw: bool | None = None,
    average: Literal["logits", "probabilities"] = "logits",
    shared_stem: bool = False,
    identical: bool = False,
    joint: bool = False,
    ablation: Literal["diversity+TA", "w/o TA", "w/o diversity"] = "diversity+TA",
) -> Recipe:
    """L = sum_e lam_e l(z_e(x_e), y_e) + (1 - lam_e) l(z_e(x_e), y'_e); the test answers with the mean of z_e.

    Each expert e has its own initial weights, order of images, augmentation, mixup pairs and lam.

    Args:
        context: Class counts and budget.
        experts: Number of experts; 3 in the talk.
        base: Loss l; the talk's numbers fit LDAM.
        mixup_alpha: Of mixup's Beta distribution; 0 for no mixup.
        drw: Deferred re-weighting of l; default: with ldam and ce, not with bsce, which balances by itself.
        average: What the test averages; the talk does not say, RIDE averages logits.
        shared_stem: Share the first layers as RIDE does; all experts then see the same images.
        identical: Give all experts the same initial weights and images, so that they stay one network.
        joint: One loss on the mean of the logits, so that the experts learn together.
        ablation: A row of the talk's table: ``w/o TA`` answers with the first expert alone; ``w/o diversity`` is one
            plain network without mixup, whatever the other options say of experts.

    Raises:
        UsageError: The number of experts is below 1, or mixup_alpha is negative.
    """
    if experts < 1 or not 0 <= mixup_alpha < math.inf:
        raise UsageError(
            f"experts is {experts} and mixup_alpha {mixup_alpha}; they must be at least 1 and 0, and finite"
        )
    if ablation == "w/o diversity":
        experts, mixup_alpha = 1, 0.0
    method, head = BASES[base]
    recipe = method(context)
    if drw if drw is not None else base != "bsce":
        recipe = deferred_weights(recipe, context)
    if mixup_alpha > 0:
        recipe = mixup(recipe, context, alpha=mixup_alpha)
    streams = 1 if identical or joint or shared_stem else experts
    answer = PickExpert() if ablation == "w/o TA" else AverageExperts(average)
    # Confidences need LDAM's scale before the average; a recipe without one answers with its logits as they are.
    scaled = isinstance(recipe.inference, ScaleLogits)
    return replace(
        recipe,
        stages=tuple(_for_experts(stage, streams, joint=joint) for stage in recipe.stages),
        network=partial(build_expert_network, experts=experts, head=head, shared_stem=shared_stem, identical=identical),
        inference=nn.Sequential(recipe.inference, answer) if scaled else answer,
    )


def _for_experts(stage: Stage, streams: int, **options: Any) -> Stage:
    """Return a stage of one network as a stage of several, with an index stream for each."""
    assert isinstance(stage.objective, SupervisedObjective)
    return replace(stage, objective=IndependentExperts(stage.objective, **options), sampling=stage.sampling * streams)
