"""Re-sampling from the first epoch on: class-balanced, square-root, progressive (Kang et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import replace

from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.sampling import ClassBalancedSampling, ProgressiveSampling, Sampling, SquareRootSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CLASS_BALANCED_CARD = Card(
    title="Class-balanced sampling",
    paper="Kang et al., ICLR 2020",
    arxiv="1910.09217",
    idea="Every class is drawn equally often: p_j = 1 / C.",
    use="As stage 2 of a decoupled method; from the first epoch it repeats the few tail images and harms features.",
)
SQUARE_ROOT_CARD = Card(
    title="Square-root sampling",
    paper="Kang et al., ICLR 2020",
    arxiv="1910.09217",
    idea="p_j ~ sqrt(n_j): half-way between the data and balance.",
    use="A mild re-sampling that keeps most of the features' quality.",
)
PROGRESSIVE_CARD = Card(
    title="Progressively balanced sampling",
    paper="Kang et al., ICLR 2020",
    arxiv="1910.09217",
    idea="Start from the data's distribution and move to balance: p_j(t) = (1 - t) n_j / N + t / C.",
    use="The best of the three sampling rules when one wants a single stage.",
)


def _ce_with(sampling: Sampling, context: Context) -> Recipe:
    recipe = ce(context)
    return recipe.with_stages(replace(recipe.stages[0], sampling=(sampling,)))


def cb_sampling(context: Context) -> Recipe:
    """Cross-entropy under class-balanced sampling: a class uniformly, then one of its images."""
    return _ce_with(ClassBalancedSampling(), context)


def sqrt_sampling(context: Context) -> Recipe:
    """Cross-entropy under square-root sampling: p_j = sqrt(n_j) / sum_i sqrt(n_i)."""
    return _ce_with(SquareRootSampling(), context)


def progressive_sampling(context: Context) -> Recipe:
    """Cross-entropy under progressively balanced sampling, t = epoch / (epochs - 1)."""
    return _ce_with(ProgressiveSampling(), context)
