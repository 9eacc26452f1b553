"""RIDE's second stage, expert assignment (Wang et al., ICLR 2021), as a modifier of methods with experts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.inference import AverageAsked, AverageExperts
from longtail.networks import ExpertHead, RoutedHead, running_means
from longtail.sampling import CyclicClassSampling
from longtail.training.budget import Context
from longtail.training.recipe import SGD, Recipe, Schedule, Shape, Stage, enter_structure
from longtail.types import Batch, Progress

CARD = Card(
    title="Expert assignment",
    paper="Wang et al., ICLR 2021",
    arxiv="2010.01809",
    idea="Small routers on frozen experts learn for which images the experts asked so far are wrong and more would be "
    "right. At the test every image begins with one expert and gets the next only where a router says so.",
    use="On ride and other methods that average experts, where the test must be cheap. It costs a little accuracy.",
    cost="1x plus 2 %; fewer multiplications at the test",
)


def needs_more(logits: Tensor, targets: Tensor) -> Tensor:
    """Say where the experts asked so far are wrong and asking more of them would be right.

    Args:
        logits: Expert logits, (E, B, C).
        targets: Classes, (B,).

    Returns:
        (E - 1, B), bool: row i is true where the mean of experts 1..i is wrong and that of a longer prefix is right.
    """
    right = running_means(logits).argmax(-1) == targets
    # Row i of `later`: whether any of the prefixes longer than i + 1 experts is right.
    later = right[1:].flip(0).cummax(0).values.flip(0)
    return ~right[:-1] & later


class AssignmentObjective(nn.Module):
    """L = mean_i BCE(router_i, t_i), t_i = 1 where experts 1..i are wrong and more are right; experts are frozen.

    Args:
        pos_weight: Weight of images that need more experts; 100 in the configurations.

    Source: github.com/frank-xwang/RIDE-LongTailRecognition, model/ldam_drw_resnets/ea_resnet_cifar.py.
    """

    def __init__(self, pos_weight: float = 100.0) -> None:
        super().__init__()
        self.pos_weight = pos_weight

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        head = network.head
        assert isinstance(head, RoutedHead)
        with torch.no_grad():
            features: Tensor = network.features(batches[0].images)  # type: ignore[operator]
            logits = head.experts(features)
        return self.loss(head.scores(features, logits), logits, batches[0].targets)

    def loss(self, scores: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of routers' scores (E - 1, B), expert logits (E, B, C) and classes (B,)."""
        wanted = needs_more(logits, targets).to(scores.dtype)
        weight = torch.full((), self.pos_weight, dtype=scores.dtype, device=scores.device)  # a copy would be waited for
        return F.binary_cross_entropy_with_logits(scores, wanted, pos_weight=weight)

    def extra_repr(self) -> str:
        """Say the weight."""
        return f"pos_weight={self.pos_weight}"


def ea(
    recipe: Recipe, context: Context, *, pos_weight: float = 100.0, top_k: int = 30, router_epochs: int = 5
) -> Recipe:
    """Add a stage that trains routers on frozen experts; an image is answered by the mean of the experts it was given.

    Router i scores sigma(v . [top-k of mean z_1..z_i ; relu(U_i f_i / |f_i|)]); the next expert is asked where it is
    above 1/2. A finished run of the method without this modifier can stand in for all stages before.

    Args:
        recipe: A recipe whose answer is the mean of its experts' logits.
        context: Class counts and budget.
        pos_weight: Weight of images that need more experts; 100 in the official configurations. The smaller, the fewer
            experts are asked.
        top_k: Number of logits that a router sees, at most the number of classes; 30 on CIFAR in the official code.
        router_epochs: Epochs of the routers' stage; 5 in the official configurations.

    Raises:
        UsageError: The recipe has no experts whose logits are averaged, or only one, or a number is out of range.
    """
    if pos_weight <= 0 or top_k < 1 or router_epochs < 1:
        raise UsageError(
            f"+ea: pos_weight is {pos_weight}, top_k {top_k} and router_epochs {router_epochs}; "
            "they must be above 0, at least 1 and at least 1"
        )
    if not isinstance(recipe.inference, AverageExperts) or recipe.inference.rule != "logits":
        raise UsageError(
            "+ea routes images between experts whose mean logits are the answer, and this method answers otherwise",
            fix="use ride+ea",
        )
    head = _trained_head(recipe, context)
    if not isinstance(head, ExpertHead) or len(head.heads) < 2:
        raise UsageError("+ea has nothing to route: this method has a single expert", fix="use 2 experts or more")
    routers = _router_stage(recipe, context, AssignmentObjective(pos_weight), router_epochs, top_k)
    return replace(recipe, stages=(*recipe.stages, routers), inference=AverageAsked())


def _router_stage(recipe: Recipe, context: Context, objective: nn.Module, epochs: int, top_k: int) -> Stage:
    """Return the routers' training: on the experts' own images under ``published``, as the code's, else on features."""
    published = context.protocol == "published"
    return Stage(
        name="routers",
        objective=objective,
        epochs=epochs,
        augment=recipe.stages[-1].augment if published else context.plain,
        batch_size=min(512, sum(context.class_counts)) if published else context.budget.batch_size,
        optimizer=SGD(lr=0.01, weight_decay=5e-4, nesterov=True),
        schedule=Schedule(epochs, "cosine", warmup=0, milestones=(), decay=()),
        sampling=(CyclicClassSampling(1),),
        trainable="head",
        batch_norm="eval",
        cached_features=not published,
        new_head=partial(RoutedHead, top_k=top_k),
    )


def _trained_head(recipe: Recipe, context: Context) -> nn.Module:
    """Return the head that a recipe ends with, without weights: what it is made of, not what it learnt."""
    shape = Shape("small", context.num_classes, 1)
    with torch.device("meta"):
        network = recipe.network(*shape)
        for stage in recipe.stages:
            network = enter_structure(network, stage, shape)
    return network.head
