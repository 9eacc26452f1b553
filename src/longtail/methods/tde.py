"""De-confound-TDE: the total direct effect of an image, without that of momentum (Tang et al., NeurIPS 2020)."""

from __future__ import annotations

from functools import partial

from longtail.errors import UsageError
from longtail.losses import CrossEntropyLoss
from longtail.methods.card import Card
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import build_network
from longtail.networks.causal import CausalNormHead, build_two_tailed_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="De-confounded training and total direct effect",
    paper="Tang et al., NeurIPS 2020",
    arxiv="2009.12991",
    idea="Momentum drags the features of all images in the direction of the head classes. A normalised classifier with "
    "several heads is trained; at the test the part of the features along that direction is taken away.",
    use="One stage, no class counts needed, and its strength alpha can be changed after the training. By its making it "
    "lowers the head's logits, so a test set that is long-tailed itself may lose.",
    cost="1x, 1.1x with two tails",
)

PUBLISHED = {"batch_size": 256, "lr": 0.2, "weight_decay": 5e-4, "milestones": (120, 160)}

ALPHAS = {"cifar10": 1.0, "cifar100": 1.5, "digits": 1.0}
"""Strengths in the official code by data set; the digits' is that of the other ten classes."""
ALPHA_OF_PHOTOGRAPHS = 3.0


def tde(
    context: Context,
    *,
    alpha: float | None = None,
    heads: int = 2,
    tau: float = 16.0,
    gamma: float = 1 / 32,
    two_tails: bool | None = None,
) -> Recipe:
    """L = CE(z, y), z_k = tau / H sum_h w_k^h . x^h / ((||w_k^h|| + gamma) ||x^h||); at the test without d's part.

    d <- 0.9 d + mean of the batch's features. At the test x^h / ||x^h|| is x^h / ||x^h|| - alpha cos(x^h, d^h) d^h /
    ||d^h||.

    Args:
        context: Data set, class counts and budget.
        alpha: How much of d's part is taken away; default as in the official code: 1 on CIFAR-10, 1.5 on CIFAR-100, 3
            on photographs. 0 is the row "De-confound".
        heads: H.
        tau: Scale of the logits.
        gamma: Added to the norms of the weights.
        two_tails: Double the backbone's last block; default: where the published numbers have it, on CIFAR under
            ``published``.

    Raises:
        UsageError: A number is out of range.
    """
    if alpha is None:
        alpha = ALPHAS.get(context.dataset, ALPHA_OF_PHOTOGRAPHS)
    if not (alpha >= 0 and tau > 0 and gamma >= 0 and heads >= 1):
        raise UsageError(
            f"tde: alpha is {alpha}, tau {tau}, gamma {gamma} and heads {heads}; they must be >= 0, > 0, >= 0 and >= 1"
        )
    if two_tails is None:
        two_tails = context.protocol == "published" and context.on_cifar
    head = partial(CausalNormHead, heads=heads, tau=tau, gamma=gamma, alpha=alpha)
    network = partial(build_two_tailed_network if two_tails else build_network, head=head)
    return Recipe((context.stage(SupervisedObjective(CrossEntropyLoss(context.class_counts))),), network)
