"""CutMix (Yun et al., ICCV 2019) as a modifier."""

from __future__ import annotations

from longtail.augment import CutMix
from longtail.methods.card import Card
from longtail.methods.mixing import mix_features
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="CutMix",
    paper="Yun et al., ICCV 2019",
    arxiv="1905.04899",
    idea="Paste a rectangle of another image of the batch, and mix the losses by area.",
    use="With long schedules, for better features; it does not balance. On rare classes its partners are nearly always "
    "frequent ones, which +cmo mends.",
)


def cutmix(recipe: Recipe, context: Context, *, alpha: float = 1.0, prob: float = 0.5) -> Recipe:
    """A box of area 1 - lam from another image, lam ~ Beta(alpha, alpha); L = lam l(y_a) + (1 - lam) l(y_b).

    One box for a batch, as in the official code; lam is taken from the box that was really pasted. Applies to every
    stage that trains the backbone.

    Args:
        recipe: Any recipe without mixing.
        context: Not used.
        alpha: Of the Beta distribution; 1 in the paper.
        prob: Probability that a batch is mixed; 0.5 in the official CIFAR code.

    Raises:
        UsageError: An option is out of range, or the recipe mixes images already.
    """
    return mix_features(recipe, "cutmix", CutMix(alpha, prob))
