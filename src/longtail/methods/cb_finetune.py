"""Class-balanced fine-tuning (Cui et al., CVPR 2018): the long tail first, then a small balanced set."""

from __future__ import annotations

from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import ClassCountLoss, CrossEntropyLoss
from longtail.methods.card import Card
from longtail.methods.decoupling import features_first
from longtail.methods.meta import need_dev
from longtail.sampling import InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import SGD, Recipe, Schedule, Stage
from longtail.types import Batch, Progress

CARD = Card(
    title="Class-balanced fine-tuning",
    paper="Cui et al., CVPR 2018",
    arxiv="1806.06193",
    idea="Train on the long tail as it comes, then fine-tune the whole network on a balanced set at a small learning "
    "rate.",
    use="Where a balanced set of some size is at hand. With ten images per class it moves little, or overfits them.",
    cost="1x plus 5 %",
)


class DevObjective(nn.Module):
    """A loss on the development batch alone.

    Args:
        criterion: Called with (logits (B, C), targets (B,)).
    """

    def __init__(self, criterion: ClassCountLoss) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the last batch; the training batch is not looked at."""
        loss: Tensor = self.criterion(network(batches[-1].images), batches[-1].targets)
        return loss


def cb_finetune(context: Context, *, stage2_epochs: int = 10, stage2_lr: float = 1e-3) -> Recipe:
    """Stage 1: cross-entropy on the training set. Stage 2: cross-entropy on the development set, all parameters.

    An epoch of stage 2 has as many steps as one of stage 1. Batch norm stays as stage 1 left it, since so few images
    have no statistics to offer. No long-tailed CIFAR code exists: epochs and learning rate are ours.

    Args:
        context: Class counts, budget and development set.
        stage2_epochs: Epochs of stage 2.
        stage2_lr: Constant learning rate of stage 2.

    Raises:
        UsageError: There is no development set, or a number is out of range.
    """
    need_dev(context, "cb-finetune")
    if not (stage2_epochs >= 1 and stage2_lr > 0):
        raise UsageError(
            f"cb-finetune: stage2_epochs is {stage2_epochs} and stage2_lr {stage2_lr}; they must be >= 1 and > 0"
        )
    budget = context.budget
    stage = Stage(
        name="fine-tuning",
        objective=DevObjective(CrossEntropyLoss(context.class_counts)),
        epochs=stage2_epochs,
        augment=context.augment,
        batch_size=budget.batch_size,
        optimizer=SGD(stage2_lr, budget.momentum, budget.weight_decay, budget.nesterov),
        schedule=Schedule(stage2_epochs, "step", warmup=0, milestones=(), decay=()),
        dev=(InstanceSampling(),),
        batch_norm="eval",
    )
    return features_first(context, stage)
