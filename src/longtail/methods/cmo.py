"""CMO: context-rich minority oversampling (Park et al., CVPR 2022) as a modifier."""

from __future__ import annotations

from typing import Literal

from longtail.augment import CMO
from longtail.methods.card import Card
from longtail.methods.mixing import mix_features
from longtail.sampling import PowerSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Context-rich minority oversampling",
    paper="Park et al., CVPR 2022",
    arxiv="2112.00412",
    idea="CutMix whose patches come from a class-balanced second stream: rare objects on the rich backgrounds of "
    "frequent classes.",
    use="On one-stage methods with long schedules (ce+cmo, bsce+cmo, ldam+drw+cmo); gains most for the tail.",
    cost="1x, with twice the augmentation",
)


def cmo(
    recipe: Recipe,
    context: Context,
    *,
    alpha: float = 1.0,
    prob: float = 0.5,
    r: float = 1.0,
    law: Literal["code", "paper"] = "code",
) -> Recipe:
    """A box of area 1 - lam from a re-balanced stream, lam ~ Beta(alpha, alpha); L = lam l(y_bg) + (1 - lam) l(y_fg).

    Off in the first 2 % and the last 1.5 % of the epochs (4 and 3 of 200). Applies to every stage that trains the
    backbone.

    Args:
        recipe: A recipe without mixing and with one index stream.
        context: Not used.
        alpha: Of the Beta distribution; 1 in the paper.
        prob: Probability that a batch is mixed; 0.5 in the official code.
        r: How far the foregrounds lean to rare classes; 1 in the paper.
        law: ``code`` draws class k with probability ~ n_k^(1-r), uniform at r = 1, as the official code does; ``paper``
            ~ n_k^(-r), the paper's formula.

    Raises:
        UsageError: An option is out of range, or the recipe mixes images already or has several streams.
    """
    foregrounds = PowerSampling(q=1 - r if law == "code" else -r)
    return mix_features(recipe, "cmo", CMO(alpha, prob), foregrounds)
