"""Mixup (Zhang et al., ICLR 2018) as a modifier."""

from __future__ import annotations

from longtail.augment import Mixup
from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.mixing import mix_features
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Mixup",
    paper="Zhang et al., ICLR 2018",
    arxiv="1710.09412",
    idea="Train on convex mixes of two images and of their losses.",
    use="With long schedules: better features and calibration. In a short run it underfits.",
)


def mixup(recipe: Recipe, context: Context, *, alpha: float = 1.0) -> Recipe:
    """X = lam x_a + (1 - lam) x_b, L = lam l(y_a) + (1 - lam) l(y_b), lam ~ Beta(alpha, alpha) for each image.

    Applies to every stage that trains the backbone; the papers draw one lam per batch, which is the same in expectation
    and noisier.

    Args:
        recipe: Any recipe without mixing.
        context: Not used.
        alpha: Of the Beta distribution; 1 as in MiSLAS and the bag of tricks.

    Raises:
        UsageError: alpha is not positive, or the recipe mixes images already.
    """
    if alpha <= 0:
        raise UsageError(f"mixup's alpha is {alpha}; it must be above 0", fix="leave +mixup out for no mixing")
    return mix_features(recipe, "mixup", Mixup(alpha=alpha))
