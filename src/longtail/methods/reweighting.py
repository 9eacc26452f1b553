"""Re-weighting by class frequency: the plain remedy beside re-sampling, RW of BBN (Zhou et al., CVPR 2020)."""

from __future__ import annotations

from longtail.losses import CrossEntropyLoss, inverse_frequency_weights
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Re-weighting by inverse frequency",
    paper="as in Zhou et al., CVPR 2020",
    arxiv="1912.02413",
    idea="Weigh every image by the inverse of its class's size, so that all classes count the same in the loss.",
    use="As the reference that other weights are measured by; for a classifier on frozen features. From the first "
    "epoch on it harms the features.",
)


def rw(context: Context, *, power: float = 1.0) -> Recipe:
    """L = sum_i w_(y_i) CE(z_i, y_i) / sum_i w_(y_i) with w_c ~ n_c^-power.

    Args:
        context: Class counts and budget.
        power: 1: inverse frequency; 0.5: inverse square root of the frequency; 0: plain cross-entropy.

    Raises:
        UsageError: The power is negative.
    """
    weights = inverse_frequency_weights(context.class_counts, power=power)
    loss = CrossEntropyLoss(context.class_counts, class_weights=weights, reduction="weight_sum")
    return Recipe(stages=(context.stage(SupervisedObjective(loss)),))
