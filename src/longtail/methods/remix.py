"""Remix (Chou et al., ECCV workshops 2020) as a modifier."""

from __future__ import annotations

from longtail.augment import Remix
from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.mixing import mix_features
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Remix",
    paper="Chou et al., ECCV workshops 2020",
    arxiv="2007.03943",
    idea="Mixup whose label goes wholly to the rarer class where that is several times rarer and has half the image.",
    use="Where +mixup is used and the tail matters; published with deferred re-weighting.",
)


def remix(recipe: Recipe, context: Context, *, alpha: float = 1.0, kappa: float = 3.0, tau: float = 0.5) -> Recipe:
    """X as mixup; the share of y_a is 0 if n_a / n_b >= kappa and lam < tau, 1 in the mirrored case, else lam.

    Applies to every stage that trains the backbone.

    Args:
        recipe: Any recipe without mixing.
        context: Class counts.
        alpha: Of mixup's Beta distribution; 1 in the bag of tricks.
        kappa: How many times larger a class must be to give up its label; 3 in the paper.
        tau: Below which share of the image it gives it up; 0.5 in the paper.

    Raises:
        UsageError: An option is out of range, or the recipe mixes images already.
    """
    if alpha <= 0:
        raise UsageError(f"remix's alpha is {alpha}; it must be above 0", fix="leave +remix out for no mixing")
    mixing = Remix(context.class_counts, alpha=alpha, kappa=kappa, tau=tau)
    return mix_features(recipe, "remix", mixing)
