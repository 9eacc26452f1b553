"""CAM-based class-balanced sampling (Zhang et al., Bag of Tricks, AAAI 2021) as a modifier."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from longtail.augment import Mixing
from longtail.augment.foreground import activation_masks, draw_moves, move_foregrounds
from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.deferred import one_stage, refuse_balanced, split
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Network, Teacher
from longtail.sampling import ClassBalancedSampling
from longtail.training.budget import Context, family
from longtail.training.recipe import Recipe, Schedule, Stage
from longtail.types import Batch, Progress

CARD = Card(
    title="CAM-based sampling",
    paper="Zhang et al., AAAI 2021",
    arxiv="",
    idea="Deferred re-sampling in which rare classes get new images: what a class-activation map marks as the object "
    "is turned, shifted or mirrored over its own background.",
    use="As +drs, where repeated images of rare classes are learnt by heart. Needs objects that a map finds. "
    "ce+mixup+cam is the authors' best combination.",
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
        mixing: Mixes the images after some were changed; None leaves them. It is not the stage's, which would come
            before, because a mixed image has no foreground of one class.
    """

    shares: Tensor
    guide: Teacher

    def __init__(self, objective: SupervisedObjective, shares: Sequence[float], mixing: Mixing | None = None) -> None:
        super().__init__()
        self.objective = objective
        self.mixing = mixing
        self.register_buffer("shares", torch.tensor(shares), persistent=False)

    def prepare(self, before: Network, network: Network) -> None:
        """Keep the network as it is when the stage begins."""
        self.guide = Teacher(copy.deepcopy(before))

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; the mixing alone may look at ``progress``."""
        batch = replace(batches[0], images=self.moved(batches[0]))
        if self.mixing is not None:
            # On the images' device; the step's seed is that of torch's global generator.
            generator = torch.Generator(batch.images.device).manual_seed(torch.initial_seed() + 1)
            (batch,) = self.mixing.mix((batch,), generator, progress)
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


def cam(recipe: Recipe, context: Context, *, start: float = 0.8, finetune: float = 0.1) -> Recipe:
    """From 80 % of the epochs on, draw classes uniformly, and in a class real images and made ones.

    Of class c, n_max + n_min - n_c images are made: the region where w_c . F is at least 3/4 of its mean, turned and
    scaled, shifted, or mirrored, is pasted over the image that it comes from. F and w_c are those of the network at the
    switch.

    A recipe that mixes images (``ce+mixup+cam``, the authors' best combination) goes on mixing, the made ones too, and
    ends with a few more epochs on real images that are not mixed, classes still drawn uniformly.

    Args:
        recipe: A one-stage recipe with plain sampling and a loss on one network's logits.
        context: Class counts.
        start: Share of the epochs before the switch; epoch 160 of 200 in the official code.
        finetune: Epochs of the end without mixing, as a share of the recipe's; 20 of 200 in the official configuration
            for ImageNet-LT. Not used where nothing is mixed.

    Raises:
        UsageError: The recipe has several stages, balances already, or has another objective.
    """
    stage = one_stage(recipe, "cam")
    objective = stage.objective
    if not isinstance(objective, SupervisedObjective):
        raise UsageError(
            "+cam needs the class weights of one classifier, and this method has an objective of its own",
            fix="use ce+cam",
        )
    refuse_balanced(objective, "cam")
    if not 0 <= finetune <= 1:
        raise UsageError(f"finetune is {finetune}; it must lie between 0 and 1 (a share of the epochs)")
    early, late = split(stage, start)
    shares = made_shares(context.class_counts, large=family(context.dataset) == "photos")
    moving = MovedForegrounds(copy.deepcopy(objective), shares, stage.mixing)
    late = replace(late, objective=moving, sampling=(ClassBalancedSampling(),), mixing=None)
    epochs = round(finetune * stage.epochs) if stage.mixing is not None else 0
    return recipe.with_stages(early, late, *([_unmixed(stage, epochs)] if epochs else []))


def _unmixed(stage: Stage, epochs: int) -> Stage:
    """Return the end on real images: a hundredth of the rate, down to a tenth at 2/5 and again at 4/5 of its epochs."""
    return replace(
        stage,
        name="fine-tune",
        objective=copy.deepcopy(stage.objective),
        epochs=epochs,
        optimizer=replace(stage.optimizer, lr=stage.optimizer.lr / 100),
        schedule=Schedule(epochs, "step", 0, tuple(max(round(k * epochs), 1) for k in (0.4, 0.8)), (0.1, 0.01)),
        sampling=(ClassBalancedSampling(),),
        mixing=None,
    )
