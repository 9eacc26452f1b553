"""RandAugment (Cubuk et al., NeurIPS 2020) as a modifier."""

from __future__ import annotations

from longtail.augment import RandAugment
from longtail.methods.augmentation import augmented
from longtail.methods.card import Card
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="RandAugment",
    paper="Cubuk et al., NeurIPS 2020",
    arxiv="1909.13719",
    idea="Change each training image by a few operations drawn from a list: move, turn, shear, recolour.",
    use="For photographs and long schedules; it does not balance. PaCo, BCL and the long runs of CMO train with it.",
    cost="1x plus the image operations",
)


def randaug(
    recipe: Recipe,
    context: Context,
    *,
    operations: int = 2,
    magnitude: float = 10.0,
    spread: float = 0.5,
    prob: float = 0.5,
) -> Recipe:
    """Draw ``operations`` of fifteen for each image, of strength N(magnitude, spread^2) in 0..10, after crop and flip.

    Applies to every stage that trains the backbone, to its first view where it compares several.

    Args:
        recipe: Any recipe.
        context: Not used.
        operations: Operations for each image; 2 in the long-tail papers, 3 in PaCo's ResNeXt-50.
        magnitude: Mean strength; 10 as there.
        spread: Standard deviation of the strength; 0.5 as there.
        prob: Probability of each operation; 0.5, timm's default.

    Raises:
        UsageError: An option is out of range, or the recipe draws operations already.
    """
    return augmented(recipe, "randaug", RandAugment(operations, magnitude, spread, p=prob))
