"""The development set as training images: the fair baseline of the methods that learn from one."""

from __future__ import annotations

from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.meta import need_dev
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Training on the development set too",
    paper="a baseline, of no paper",
    arxiv="",
    idea="The held-out development images join the training set, so that a method without use for them has seen as "
    "many labelled images as one that learns weights from them.",
    use="Beside da-meta, l2rw, meta-weight-net and cb-finetune: their images of rare classes are worth much by "
    "themselves.",
)


def dev(recipe: Recipe, context: Context) -> Recipe:
    """Train on the union of training and development set; class counts are those of the union.

    Args:
        recipe: Any recipe that does not draw from the development set.
        context: Says whether there is one.

    Raises:
        UsageError: There is no development set, or the method learns from it in another way already.
    """
    need_dev(context, "+dev")
    if any(stage.dev for stage in recipe.stages):
        raise UsageError(
            "+dev puts the development set into the training set, but this method needs it apart",
            fix="use +dev on a method that does not, such as ce+drw+dev",
        )
    return recipe
