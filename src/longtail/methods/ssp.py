"""SSP: self-supervised pre-training before any method (Yang and Xu, NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.self_supervision import Task, beside, pretext, release, usual_task
from longtail.training.budget import Context
from longtail.training.recipe import SGD, Recipe, Schedule, Stage

CARD = Card(
    title="Self-supervised pre-training",
    paper="Yang and Xu, NeurIPS 2020",
    arxiv="2006.07529",
    idea="Labels of a long tail bias the features too. Learn features without them first, by telling how an image was "
    "turned or which of many views is of the same image, and start the method from there.",
    use="Disputed: the authors gain on all sets, a user of their code lost on CIFAR-10. Doubles the cost.",
    cost="2x (rotation), 2.5x (instance)",
)


def ssp(recipe: Recipe, context: Context, *, task: Task | None = None, pretext_epochs: int | None = None) -> Recipe:
    """Before the first stage the backbone learns without labels; then the method, with a fresh classifier.

    rotation: cross-entropy of telling 0, 90, 180 or 270 degrees, one of them for each image, with the budget's
    optimiser and schedule. instance: MoCo v2 between two strong views of an image, SGD of rate 0.03 B / 256 with a
    cosine and weight decay 1e-4. All but the classifier goes on, batch-norm statistics included.

    Args:
        recipe: Any recipe; where a later stage begins with a fresh network, only the first one's is pre-trained.
        context: Budget, augmentation and number of images.
        task: ``rotation`` or ``instance``; default: ``instance`` on photographs, as the authors on ImageNet-LT, and
            ``rotation`` otherwise, as they on CIFAR.
        pretext_epochs: Epochs of the pre-training; default: the budget's, as in the code on CIFAR. On ImageNet-LT and
            iNaturalist it has 200, of batches of 128, before 90.

    Raises:
        UsageError: ``pretext_epochs`` is below 1.
    """
    epochs = context.budget.epochs if pretext_epochs is None else pretext_epochs
    if epochs < 1:
        raise UsageError(f"pretext_epochs is {epochs}; it must be at least 1", fix="leave +ssp out for no pre-training")
    first, *others = recipe.stages
    after = replace(first, new_head=_released_for(first.new_head))
    return recipe.with_stages(_pretext_stage(context, task or usual_task(context), epochs), after, *others)


def _pretext_stage(context: Context, task: Task, epochs: int) -> Stage:
    chosen = pretext(task, context)
    budget = context.budget.scaled(epochs)
    stage = replace(
        context.stage(chosen.objective, "pretext"),
        epochs=epochs,
        schedule=budget.lr_schedule(),
        new_head=beside(chosen.head, aside=True),
        views=chosen.views,
    )
    if task == "rotation":
        return stage
    return replace(
        stage,
        augment=chosen.views[0],  # both views are strong
        optimizer=SGD(0.03 * budget.batch_size / 256, weight_decay=1e-4),
        schedule=Schedule(epochs, "cosine", warmup=0, milestones=(), decay=()),
    )


def _released_for(new_head: Callable[[nn.Module], nn.Module] | None) -> Callable[[nn.Module], nn.Module]:
    """Return a stage's ``new_head`` behind the release of the waiting classifier."""
    if new_head is None:
        return release
    return lambda head: new_head(release(head))
