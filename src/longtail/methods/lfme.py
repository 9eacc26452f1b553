"""LFME: learning from multiple experts (Xiang, Ding and Han, ECCV 2020)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist

from longtail.errors import UsageError
from longtail.losses import CrossEntropyLoss, cross_entropy_loss, distillation_loss, soft_targets
from longtail.losses.base import upcast
from longtail.methods.card import Card
from longtail.methods.class_groups import GroupAnswers, GroupExperts, class_groups, membership
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Network, Teacher, build_expert_network, build_network
from longtail.sampling import CyclicClassSampling, InstanceSampling
from longtail.sampling.subset import SubsetSampling
from longtail.training.budget import Context
from longtail.training.recipe import Look, Recipe, Stage
from longtail.types import Batch, Progress

CARD = Card(
    title="Learning from multiple experts",
    paper="Xiang, Ding and Han, ECCV 2020",
    arxiv="2001.01536",
    idea="Many, medium and few classes each get an expert that learns them alone; one student learns all classes, and "
    "from each expert until it has caught up with it, easy images first.",
    use="To understand what separate groups can reach. Costs several trainings, and later methods are stronger.",
    cost="4x to 5x, 1x at the test",
)

_STEPS = {"warmup": 0, "schedule": "step", "milestones": (50, 80), "decay": (0.1, 0.01)}
PUBLISHED_ON = {
    "imagenet-lt": {**_STEPS, "epochs": 90, "batch_size": 256, "lr": 0.1, "weight_decay": 5e-4, "nesterov": False}
}

Form = Literal["code", "paper"]


def easiness_floors(class_counts: tuple[int, ...], groups: list[tuple[int, ...]]) -> list[float]:
    """Return tau of each group: mean images per class of the last group over its own; 1 for the last."""
    means = [sum(class_counts[label] for label in group) / len(group) for group in groups]
    return [means[-1] / mean for mean in means]


def scaled_within_classes(confidences: Tensor, targets: Tensor, floors: Tensor) -> Tensor:
    """Scale confidences class by class so that the lowest becomes the class's floor and the highest 1.

    Args:
        confidences: One for each image, (N,).
        targets: Class indices, (N,), int64.
        floors: One for each class, (C,).

    Returns:
        Scaled, (N,). Where a class has but one value, such as a class with one image, it becomes 1.
    """
    ends = [
        torch.zeros_like(floors).scatter_reduce(0, targets, confidences, how, include_self=False)[targets]
        for how in ("amin", "amax")
    ]
    span = ends[1] - ends[0]
    share = torch.where(span > 0, (confidences - ends[0]) / span.clamp(min=torch.finfo(span.dtype).tiny), 1.0)
    floor = floors[targets]
    return floor + (1 - floor) * share


def self_paced_weights(student: Tensor, experts: Tensor, threshold: float) -> Tensor:
    """How much the student still learns from each expert: w_l.

    1 while Acc_student <= threshold Acc_expert, then falling in proportion to the gap, and 0 where there is none.

    Args:
        student: The student's accuracy on each group, (E,).
        experts: Each expert's on its own, (E,).
        threshold: alpha in [0, 1).
    """
    falling = (experts - student) / (experts * (1 - threshold)).clamp(min=1e-12)
    return torch.where(student <= threshold * experts, 1.0, falling.clamp(min=0))


class LearningFromExperts(nn.Module):
    """The student's loss: cross-entropy, easy images first, and distillation from experts not yet caught up with.

    An image's easiness v_i is its expert's confidence in the true class, scaled within the class to [tau, 1].

    Accuracies are counted while an epoch runs and set the weights of the next: on the development set if the stage
    draws from one, otherwise on the training batches.

    Args:
        groups: Which classes each expert has, (E, C), bool.
        floors: Lowest easiness tau of each class, (C,).
        images: Number of training images N.
        temperature: T of the distillation.
        threshold: alpha of `self_paced_weights`.
        form: ``code``: easiness multiplies the student's logits; ``paper``: its loss on each image.
        dev: Whether the last batch is one of the development set.

    Attributes:
        weights: w_l of the epoch under way, (E,).
        ratings: v_i of the training images, (N,); 1 until they are measured.
    """

    groups: Tensor
    floors: Tensor
    weights: Tensor
    hits: Tensor
    ratings: Tensor
    experts: Teacher

    def __init__(
        self,
        groups: Tensor,
        floors: Tensor,
        images: int,
        *,
        temperature: float = 2.0,
        threshold: float = 0.3,
        form: Form = "code",
        dev: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.threshold = threshold
        self.form: Form = form
        self.dev = dev
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("floors", floors, persistent=False)
        # Class indices of each group, so that no step has to look for them.
        for number, group in enumerate(groups):
            self.register_buffer(f"members{number}", group.nonzero().flatten(), persistent=False)
        self.register_buffer("ratings", torch.ones(images))
        self.register_buffer("weights", torch.ones(len(groups)))
        self.register_buffer("hits", torch.zeros(3, len(groups)))  # of the student, of the experts, and images

    def prepare(self, before: Network, network: Network) -> None:
        """Take the experts of the stage before as teachers."""
        self.experts = Teacher(before)

    def measure(self, look: Look, targets: Tensor) -> None:
        """Rate the training images by the experts."""
        logits = look(self.experts).to(targets.device)
        expert = self.groups.int().argmax(0)[targets]  # the one that has the image's class
        rows = torch.arange(len(targets), device=targets.device)
        own = logits[expert, rows].masked_fill(~self.groups[expert], -torch.inf)
        confidences = own.softmax(1)[rows, targets]
        self.ratings.copy_(scaled_within_classes(confidences, targets, self.floors))

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch."""
        if progress.step == 0:
            self._start_epoch(first=progress.epoch == 0)
        batch = batches[0]
        logits, taught = upcast(network(batch.images)), self.experts.expert_logits(batch.images)
        if self.dev:
            self._count_dev(network, batches[-1])
        else:
            self._count(logits, taught, batch.targets)
        return self.loss(logits, taught, batch, self.easiness(self.ratings[batch.indices], progress))

    def easiness(self, ratings: Tensor, progress: Progress) -> Tensor:
        """Return v_i(e) of images with given v_i, (B,): linear in the epoch, e = 1, 2, ...

        In the paper's form it reaches 1 in the last epoch; in the code's halfway, and goes on to 2 - v_i.
        """
        span = progress.epochs / 2 if self.form == "code" else progress.epochs
        return ratings + (1 - ratings) * (progress.epoch + 1) / span

    def loss(self, logits: Tensor, taught: Tensor, batch: Batch, easiness: Tensor) -> Tensor:
        """Return the scalar loss of the student's logits (B, C), the experts' (E, B, C) and v_i(e) (B,)."""
        by_code = self.form == "code"
        if by_code:
            logits = logits * easiness.unsqueeze(1)
        losses = cross_entropy_loss(logits, batch.targets)
        if batch.lam is not None and batch.mixed_targets is not None:
            losses = batch.lam * losses + (1 - batch.lam) * cross_entropy_loss(logits, batch.mixed_targets)
        total = (losses if by_code else losses * easiness).mean()
        for number, (weight, own) in enumerate(zip(self.weights, taught, strict=True)):
            inside = self.get_buffer(f"members{number}")
            targets = soft_targets(own[:, inside], self.temperature)
            kd = distillation_loss(logits[:, inside], targets, self.temperature).mean() / self.temperature**2
            total = total + weight * kd
        return total

    def _start_epoch(self, *, first: bool) -> None:
        if not first:
            if dist.is_initialized():
                dist.all_reduce(self.hits)
            student, experts = self.hits[:2] / self.hits[2].clamp(min=1)
            self.weights.copy_(self_paced_weights(student, experts, self.threshold))
        self.hits.zero_()

    @torch.no_grad()
    def _count(self, logits: Tensor, taught: Tensor, targets: Tensor) -> None:
        """Count right answers: the student's among all classes, each expert's among its own."""
        members = self.groups[:, targets]
        own = taught.masked_fill(~self.groups.unsqueeze(1), -torch.inf).argmax(-1)
        right = torch.stack([(logits.argmax(1) == targets).expand_as(members), own == targets])
        self.hits += torch.cat([right & members, members.unsqueeze(0)]).sum(-1)

    @torch.no_grad()
    def _count_dev(self, network: nn.Module, batch: Batch) -> None:
        was_training = network.training
        network.eval()
        with torch.compiler.set_stance("force_eager"):
            self._count(network(batch.images), self.experts.expert_logits(batch.images), batch.targets)
        network.train(was_training)

    def extra_repr(self) -> str:
        """Describe the options."""
        return f"temperature={self.temperature}, threshold={self.threshold}, form={self.form!r}, dev={self.dev}"


def lfme(
    context: Context,
    *,
    form: Form = "code",
    temperature: float = 2.0,
    threshold: float = 0.3,
    many: int = 100,
    few: int = 20,
    expert_epochs: int | None = None,
) -> Recipe:
    """L = mean_i CE(v_i(e) z_i, y_i) + sum_l w_l KL(softmax(z_l / T) || softmax(v z_(S_l) / T)), S_l the classes of l.

    Stage 1: an expert for many, medium and few classes each, by cross-entropy on the images of its group. Stage 2: a
    new network learns all classes, four images of a class in a row. v_i is the expert's confidence in the true class,
    scaled within the class to [tau_l, 1], and grows with the epoch e; tau_l = mean class size of the last group over
    that of l. w_l is 1 until the student has ``threshold`` times the expert's accuracy, then falls to 0 with the gap.
    The accuracies are those on the development set, where there is one, otherwise on the training batches.

    Args:
        context: Class counts and budget.
        form: ``code``: as above, v_i(e) = v_i + (1 - v_i) 2 e / epochs; ``paper``: v_i(e) = v_i + (1 - v_i) e / epochs
            multiplies the image's cross-entropy, and no logits.
        temperature: T of the distillation.
        threshold: Share of an expert's accuracy up to which it teaches in full.
        many: A class of at least this many images is a many-shot class.
        few: A class of at most this many images is a few-shot class.
        expert_epochs: Epochs of stage 1, an epoch being the images of the largest group; default: those of the budget.

    Raises:
        UsageError: A number is out of range.
    """
    fits = 0 < temperature < math.inf and 0 <= threshold < 1 and few < many
    if not fits or (expert_epochs is not None and expert_epochs < 1):
        raise UsageError(
            f"lfme: temperature is {temperature}, threshold {threshold}, many {many}, few {few}, expert_epochs "
            f"{expert_epochs}; they must be above 0, in [0, 1), above few, below many, and at least 1"
        )
    groups = class_groups(context.class_counts, many, few)
    mask = membership(groups, context.num_classes)
    floors = torch.tensor(easiness_floors(context.class_counts, groups))[mask.int().argmax(0)]
    student = LearningFromExperts(
        mask,
        floors,
        sum(context.class_counts),
        temperature=temperature,
        threshold=threshold,
        form=form,
        dev=context.dev_per_class > 0,
    )
    return Recipe(
        stages=(_experts_stage(context, groups, expert_epochs), _student_stage(context, student)),
        network=partial(build_expert_network, experts=len(groups)),
        inference=GroupAnswers(mask),
    )


def _experts_stage(context: Context, groups: list[tuple[int, ...]], epochs: int | None) -> Stage:
    """Return the training of one expert for each group, each on a stream as long as the largest group."""
    budget = context.budget if epochs is None else context.budget.scaled(epochs)
    longest = max(sum(context.class_counts[label] for label in group) for group in groups)
    loss = SupervisedObjective(CrossEntropyLoss(context.class_counts))
    stage = replace(context, budget=budget).stage(
        GroupExperts(loss, membership(groups, context.num_classes)), "experts"
    )
    return replace(stage, sampling=tuple(SubsetSampling(group, longest) for group in groups))


def _student_stage(context: Context, objective: LearningFromExperts) -> Stage:
    """Return the training of the student; the development set, where there is one, passes about once an epoch."""
    stage = replace(context.stage(objective, "student"), sampling=(CyclicClassSampling(4),), new_network=build_network)
    if not objective.dev:
        return stage
    images = context.dev_per_class * context.num_classes
    size = -(-images * stage.batch_size // sum(context.class_counts))
    return replace(stage, dev=(InstanceSampling(),), dev_batch_size=size)
