"""L2RW: learning to reweight examples (Ren et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from longtail.losses import ClassCountLoss, CrossEntropyLoss
from longtail.methods.card import Card
from longtail.methods.meta import WeightRecord, forward, gains, need_dev
from longtail.sampling import InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.training.world import sum_over_processes
from longtail.types import Batch, Progress

CARD = Card(
    title="Learning to reweight examples",
    paper="Ren et al., ICML 2018",
    arxiv="1803.09050",
    idea="In each step an image weighs as much as its gradient agrees with that of a small balanced development set; "
    "images that disagree weigh nothing, and the weights of a batch are normalised.",
    use="Made for noisy labels. On long tails it gains a little at imbalance 50 to 100 and loses on nearly balanced "
    "sets and on many rare classes: it throws most of each batch away.",
    cost="about 3x",
)


def clipped_weights(gain: Tensor) -> Tensor:
    """Weights max(u_i, 0) / sum_j max(u_j, 0), times the batch size of all processes; all 0 where no u_i is positive.

    Args:
        gain: u, (B,).

    Returns:
        (B,), of mean 1 over the whole batch.
    """
    positive = gain.clamp(min=0)
    total, size = sum_over_processes((positive.sum(), torch.full_like(positive.sum(), float(len(gain)))))
    return positive * (size / total.masked_fill(total == 0, 1))


class L2RWObjective(nn.Module):
    """sum_i w_i L_i with w_i ~ max(<grad L_D(theta), grad L_i(theta)>, 0), sum w = 1 (Ren et al., ICML 2018).

    The paper's look-ahead starts from weights 0, so that theta~ = theta, and its step size falls out when the weights
    are normalised. A batch without a positive product has loss 0 and gradient 0.

    Args:
        criterion: L.
        record: What the images weighed, relative to 1 / B.

    Source: github.com/uber-research/learning-to-reweight-examples, mnist/reweight.py.
    """

    def __init__(self, criterion: ClassCountLoss, record: WeightRecord) -> None:
        super().__init__()
        self.criterion = criterion
        self.record = record

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the training batch, the first; the last is the development batch."""
        passed = forward(network, batches[0], self.criterion)
        gain = gains(network, passed, batches[-1], self.criterion, self.criterion, coefficients=None, eta=0.0)
        weights = clipped_weights(gain)
        self.record.add(progress.epoch, batches[0].targets, weights, weights)
        return (weights * passed.losses).sum() / len(weights)


def l2rw(context: Context) -> Recipe:
    """L = sum_i w_i CE_i, w_i = max(u_i, 0) / sum_j max(u_j, 0), u_i = <grad L_D(theta), grad CE_i(theta)>.

    From the first epoch on. The official code has no long-tailed setting; the budget is that of the other methods.

    Args:
        context: Class counts, budget and development set.

    Raises:
        UsageError: There is no development set.
    """
    need_dev(context, "l2rw")
    record = WeightRecord(context.num_classes, context.budget.epochs)
    stage = context.stage(L2RWObjective(CrossEntropyLoss(context.class_counts), record))
    return Recipe(stages=(replace(stage, dev=(InstanceSampling(),)),))
