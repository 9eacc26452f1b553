"""Softmax equalization loss (Tan et al., CVPR 2020)."""

from __future__ import annotations

from longtail.losses import SoftmaxEqualizationLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Softmax equalization loss",
    paper="Tan et al., CVPR 2020",
    arxiv="2003.05176",
    idea="With probability gamma, leave a rare class out of the softmax of another class's image, so that it is not "
    "pushed down by the many.",
    use="Many classes, of which a large share is rare.",
)


def seql(context: Context, *, gamma: float = 0.9, threshold: float | None = None) -> Recipe:
    """L = -log( e^{z_y} / sum_k w_k e^{z_k} ), w_k = 1 - beta_k T_k (1 - y_k), beta_k ~ Bernoulli(gamma).

    Args:
        context: Class counts and budget.
        gamma: Probability of leaving a rare class out.
        threshold: T_k = 1 where n_k / N is below it. Default 0.5 / C, which is what the bag-of-tricks code sets for
            CIFAR-10 (0.05) and CIFAR-100 (0.005) at imbalance 100.
    """
    threshold = 0.5 / context.num_classes if threshold is None else threshold
    loss = SoftmaxEqualizationLoss(context.class_counts, gamma=gamma, threshold=threshold)
    return Recipe(stages=(context.stage(SupervisedObjective(loss)),))
