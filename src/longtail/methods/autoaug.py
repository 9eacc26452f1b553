"""AutoAugment (Cubuk et al., CVPR 2019) and Cutout (DeVries and Taylor, 2017) as a modifier."""

from __future__ import annotations

from longtail.augment import AutoAugment, Cutout
from longtail.methods.augmentation import augmented
from longtail.methods.card import Card
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="AutoAugment and Cutout",
    paper="Cubuk et al., CVPR 2019",
    arxiv="1805.09501",
    idea="Change each training image by one of 25 pairs of operations that were found on CIFAR-10, and blacken a "
    "square of half its side.",
    use="For small images and long schedules; it does not balance. BALMS, PaCo, NCL and the long runs of CMO train "
    "with it; for photographs see +randaug.",
    cost="1x plus the image operations",
)


def autoaug(recipe: Recipe, context: Context) -> Recipe:
    """Draw a pair of operations for each image, then blacken a square of half the side, after crop and flip.

    Applies to every stage that trains the backbone, to its first view where it compares several.

    Args:
        recipe: Any recipe.
        context: Not used.

    Raises:
        UsageError: The recipe draws operations already.
    """
    return augmented(recipe, "autoaug", AutoAugment(), Cutout(None))
