"""CAM-based class-balanced sampling (Zhang et al., Bag of Tricks, AAAI 2021) as a modifier."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from longtail.augment.foreground import activation_masks, draw_moves, move_foregrounds
from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.deferred import one_stage, split
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Network, Teacher
from longtail.sampling import ClassBalancedSampling
from longtail.training.budget import Context, family
from longtail.training.recipe import Recipe
from longtail.types import Batch, Progress

CARD = Card(
    title="CAM-based sampling",
    paper="Zhang et al., AAAI 2021",
    arxiv="",
    idea="Deferred re-sampling in which rare classes get new images: what a class-activation map marks as the object "
    "is turned, shifted or mirrored over its own background.",
    use="As +drs, where repeated images of rare classes are learnt by heart. Needs objects that a map finds.",
    cost="1.1x",
)

PUBLISHED = {"nesterov": True}
MANY, MOST = 100, 100
"""On large sets: classes of so many images get none made, others at most so many."""


def made_shares(class_counts: Sequence[int], *, large: bool) -> list[float]:
    """Return for each class which share of its images is a made one.

    Every class is filled up to n_max + n_min; on large sets only those below 100 images, by at most 100.
    """
    top = max(class_counts) + min(class_counts)
    made = [top - n for n in class_counts]
    if large:
        made = [0 if n >= MANY else min(m, MOST) for n, m in zip(class_counts, made, strict=True)]
    return [m / (m + n) for n, m in zip(class_counts, made, strict=True)]


class MovedForegrounds(nn.Module):
    """A loss on images of which some have their foreground moved, by the maps of the network of the stage before.

    Args:
        objective: The loss.
        shares: Probability that an image of a class is changed, C numbers.
    """

    shares: Tensor
    guide: Teacher

    def __init__(self, objective: SupervisedObjective, shares: Sequence[float]) -> None:
        super().__init__()
        self.objective = objective
        self.register_buffer("shares", torch.tensor(shares), persistent=False)

    def prepare(self, before: Network, network: Network) -> None:
        """Keep the network as it is when the stage begins."""
        self.guide = Teacher(copy.deepcopy(before))

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        batch = replace(batches[0], images=self.moved(batches[0]))
        return self.objective.loss(network(batch.images), batch)

    @torch.no_grad()
    def moved(self, batch: Batch) -> Tensor:
        """Return the images, some of them with their foreground moved."""
        changed = torch.rand(len(batch), device=batch.images.device) < self.shares[batch.targets]
        network = self.guide.network
        weights: Tensor = network.head.weight  # type: ignore[assignment]
        maps = network.backbone.feature_map(batch.images)
        masks = activation_masks(maps, weights[batch.targets], (batch.images.shape[2], batch.images.shape[3]))
        images = move_foregrounds(batch.images, masks, draw_moves(masks))
        return torch.where(changed.view(-1, 1, 1, 1), images, batch.images)


def cam(recipe: Recipe, context: Context, *, start: float = 0.8) -> Recipe:
    """From 80 % of the epochs on, draw classes uniformly, and in a class real images and made ones.

    Of class c, n_max + n_min - n_c images are made: the region where w_c . F is at least 3/4 of its mean, turned and
    scaled, shifted, or mirrored, is pasted over the image that it comes from. F and w_c are those of the network at the
    switch. Images are not mixed in this part, also where the recipe mixes them before.

    Args:
        recipe: A one-stage recipe with plain sampling and a loss on one network's logits.
        context: Class counts.
        start: Share of the epochs before the switch; epoch 160 of 200 in the official code.

    Raises:
        UsageError: The recipe has several stages, samples or weighs by class already, or another objective.
    """
    stage = one_stage(recipe, "cam")
    objective = stage.objective
    if not isinstance(objective, SupervisedObjective):
        raise UsageError(
            "+cam needs the class weights of one classifier, and this method has an objective of its own",
            fix="use ce+cam or bsce+cam",
        )
    if objective.criterion.class_weights is not None:
        raise UsageError("+cam would balance twice: this method weighs classes already", fix="use ce+cam")
    early, late = split(stage, start)
    moving = MovedForegrounds(
        copy.deepcopy(objective), made_shares(context.class_counts, large=family(context.dataset) == "photos")
    )
    late = replace(late, objective=moving, sampling=(ClassBalancedSampling(),), mixing=None)
    return recipe.with_stages(early, late)
