"""Class-balanced loss by the effective number of samples (Cui et al., CVPR 2019)."""

from __future__ import annotations

import math
from functools import partial

from longtail.losses import CBLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import LinearHead, build_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CE_CARD = Card(
    title="Class-balanced cross-entropy",
    paper="Cui et al., CVPR 2019",
    arxiv="1901.05555",
    idea="Weight a class by the inverse of its effective number E_n = (1 - beta^n) / (1 - beta): new images overlap "
    "old ones, so the useful volume of a class grows ever more slowly.",
    use="Helps medium and tail classes a little. Strong weights from the first epoch harm the features: with many "
    "classes prefer a smaller beta, or ce+drw.",
)
FOCAL_CARD = Card(
    title="Class-balanced focal loss",
    paper="Cui et al., CVPR 2019",
    arxiv="1901.05555",
    idea="The effective-number weight on a one-against-all (sigmoid) focal loss.",
    use="On a few classes (CIFAR-10) the better of the two class-balanced losses.",
)


def default_beta(num_classes: int) -> float:
    """Return the bag-of-tricks code's choice: 0.9999 for CIFAR-10, 0.9 for CIFAR-100 (here: more than 10 classes)."""
    return 0.9999 if num_classes <= 10 else 0.9


def cb_ce(context: Context, *, beta: float | None = None) -> Recipe:
    """L = w_y CE(z, y) with w_c ~ (1 - beta) / (1 - beta^n_c), sum w = C; divided by B.

    Args:
        context: Class counts and budget.
        beta: In [0, 1]; 0 is plain cross-entropy, 1 is inverse frequency. Default 0.9999 up to 10 classes, else 0.9.
    """
    beta = default_beta(context.num_classes) if beta is None else beta
    loss = CBLoss(context.class_counts, beta=beta, form="softmax")
    return Recipe(stages=(context.stage(SupervisedObjective(loss)),))


def cb_focal(context: Context, *, beta: float | None = None, gamma: float = 1.0) -> Recipe:
    """L = w_y sum_c focal(sigmoid(z_c)), weights as in cb-ce; divided by B.

    The classifier's biases start at -log(C - 1), so that every sigmoid begins near 1 / C: of C one-against-all answers
    only one is yes, and the noes would drown the first epochs.

    Args:
        context: Class counts and budget.
        beta: As in cb-ce.
        gamma: Focusing exponent; the bag-of-tricks code takes 1 at imbalance 100 and 2 on CIFAR-10 at 50.
    """
    beta = default_beta(context.num_classes) if beta is None else beta
    loss = CBLoss(context.class_counts, beta=beta, gamma=gamma, form="focal")
    head = partial(LinearHead, bias=-math.log(max(context.num_classes - 1, 1)))
    return Recipe(stages=(context.stage(SupervisedObjective(loss)),), network=partial(build_network, head=head))
