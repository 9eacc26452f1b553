"""SSD: self supervision to distillation (Li et al., ICCV 2021)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import CrossEntropyLoss, distillation_loss, soft_targets
from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.methods.decoupling import classifier_stage
from longtail.methods.self_supervision import (
    Form,
    InstanceDiscrimination,
    PretextHead,
    RotationPrediction,
    beside,
    pretext,
    usual_task,
)
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import LearnableScalingHead, LinearHead, Network, Teacher, build_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe, Stage
from longtail.types import Batch, Progress

CARD = Card(
    title="Self supervision to distillation",
    paper="Li, Wang and Wu, ICCV 2021",
    arxiv="2109.04075",
    idea="Features from labels and a task without labels together; a class-balanced rescaling of the classifier makes "
    "soft labels of them; a fresh network learns the true labels with one head and the soft ones with another.",
    use="Gains in many and medium over its own teacher and loses a little in few, at the cost of three trainings.",
    cost="3.4x (rotation)",
    teacher=True,
)

# The settings on CIFAR are not known to us; these are BBN's, as in `dive`.
PUBLISHED = {"milestones": (120, 160), "nesterov": True}
PUBLISHED_ON = {"imagenet-lt": {"epochs": 135, "batch_size": 256, "lr": 0.1}}

SelfTask = Literal["rotation", "instance", "none"]
Row = Literal["plain", "I", "teacher", "coupled", "single", "III-hard", "III-soft", "IV-LWS"]
Heads = Literal["two", "coupled", "single"]


class JointObjective(nn.Module):
    """Phase I: L = L_sup + L_self (Li et al., SSD, ICCV 2021, where both weights are 1).

    Args:
        supervised: The loss on the labels.
        self_supervised: The loss of the task without labels.
    """

    def __init__(
        self, supervised: SupervisedObjective, self_supervised: RotationPrediction | InstanceDiscrimination
    ) -> None:
        super().__init__()
        self.supervised = supervised
        self.self_supervised = self_supervised

    def prepare(self, before: Network, network: Network) -> None:
        """Make the momentum encoder, where there is one."""
        if isinstance(self.self_supervised, InstanceDiscrimination):
            self.self_supervised.prepare(before, network)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss; the first batch's features serve both terms."""
        features: Tensor = network.features(batches[0].images)  # type: ignore[operator]
        logits: Tensor = network.head(features)  # type: ignore[operator]
        return self.supervised.loss(logits, batches[0]) + self.self_supervised.loss(network, batches, features)


class SelfDistillation(nn.Module):
    """Phase III: L = L_ce(y, z_hard) + L_kd(softmax(z~ / T), z_soft) (Li et al., SSD, ICCV 2021; both weights 1).

    L_kd is T^2 times the divergence from the teacher's probabilities, whose gradient is that of the paper's
    cross-entropy.

    Args:
        supervised: The loss on the labels.
        temperature: T of teacher and student.
        heads: ``two``: logits (2, B, C) of a `DualHead`; ``coupled``: both losses on the logits of one head;
            ``single``: the soft labels alone, on one head.
        teacher: The teacher; None: the network of the stage before.
    """

    def __init__(
        self,
        supervised: SupervisedObjective,
        *,
        temperature: float = 2.0,
        heads: Heads = "two",
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.supervised = supervised
        self.temperature = temperature
        self.heads = heads
        self.teacher = teacher

    def prepare(self, before: Network, network: Network) -> None:
        """Take the network of the stage before as teacher where none is given."""
        if self.teacher is None:
            self.teacher = Teacher(copy.deepcopy(before))

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; teacher and student see the same images."""
        assert self.teacher is not None
        images = batches[0].images
        return self.loss(network(images), self.teacher(images), batches[0])

    def loss(self, logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of the student's logits, (2, B, C) or (B, C), and the teacher's, (B, C)."""
        hard, soft = logits if self.heads == "two" else (logits, logits)
        targets = soft_targets(teacher_logits, self.temperature)
        distilled = distillation_loss(soft, targets, self.temperature).mean()
        return distilled if self.heads == "single" else self.supervised.loss(hard, batch) + distilled

    def extra_repr(self) -> str:
        """Describe the loss."""
        return f"temperature={self.temperature}, heads={self.heads!r}"


class DualHead(nn.Module):
    """A hard and a soft classifier on the same features: (B, d) -> (2, B, C), the hard one's logits first.

    Args:
        num_features: Width d of the features.
        num_classes: Number of classes C.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.hard = LinearHead(num_features, num_classes)
        self.soft = LinearHead(num_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of both."""
        return torch.stack([self.hard(features), self.soft(features)])


class PickHead(nn.Module):
    """The answer of one head of a `DualHead`; logits of the one head that the phases before have stay.

    Args:
        head: ``hard`` or ``soft``.
    """

    def __init__(self, head: Literal["hard", "soft"]) -> None:
        super().__init__()
        self.head = head

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (2, B, C) or (B, C) to logits (B, C)."""
        return logits[0 if self.head == "hard" else 1] if logits.ndim == 3 else logits


def build_dual_network(backbone: str, num_classes: int, in_channels: int = 3) -> Network:
    """Build a network with a `DualHead`; see `longtail.networks.build_network`."""
    return build_network(backbone, num_classes, in_channels, DualHead)


def ssd(
    context: Context,
    *,
    row: Row = "III-soft",
    task: SelfTask | None = None,
    form: Form | None = None,
    temperature: float = 2.0,
    stage2_epochs: int | None = None,
    stage2_lr: float | None = None,
    cached: bool | None = None,
) -> Recipe:
    """I: L_ce + L_self. II: LWS, the teacher. III: a fresh network, L_ce(z_hard) + L_kd(z_soft). IV, at will: LWS.

    L_self is the cross-entropy of telling an image's rotation or MoCo's loss; L_kd = T^2 KL(softmax(z~ / T) ||
    softmax(z_soft / T)). The soft head answers. With a teacher given (any finished run) phases I and II are left out.

    Args:
        context: Class counts, budget and perhaps a teacher.
        row: Where the method stops, by the names of the paper's Tables 4 and 5. ``plain``: cross-entropy; ``I``,
            ``teacher``: after phase I, II; ``III-hard``, ``III-soft``: phase III, answered by that head; ``coupled``:
            both losses on one head; ``single``: soft labels alone; ``IV-LWS``: the hard head rescaled as in phase II.
        task: Without labels, in phase I: ``rotation``, ``instance`` or ``none``; default: the paper's, ``instance`` on
            photographs and ``rotation`` otherwise.
        form: Of ``instance``: whether keys of an image's own class are left out of the others (``code``, the default)
            or not (``formula``).
        temperature: T of the soft labels; 2 in the code.
        stage2_epochs: Epochs of phases II and IV; default 30, ``published`` on the large sets 5.
        stage2_lr: Their peak learning rate; default 0.1, ``published`` on the large sets 0.2.
        cached: Train them on features computed once; default: everywhere but under ``published``.

    Raises:
        UsageError: The temperature is not positive, a teacher is given to a row without a student, or an option to a
            recipe without the phase that it is of.
    """
    if not temperature > 0:
        raise UsageError(f"temperature is {temperature}; it must be above 0")
    if row in ("plain", "I", "teacher") and context.teacher is not None:
        raise UsageError(
            f"row {row!r} of ssd has no student, so a teacher has nobody to teach", fix="leave --teacher out"
        )
    chosen = task or usual_task(context)
    given = {"task": task, "form": form, "stage2_epochs": stage2_epochs, "stage2_lr": stage2_lr, "cached": cached}
    _refuse_idle([name for name, value in given.items() if value is not None], context, row, chosen)
    if row == "plain":
        return ce(context)

    def scaling(name: str) -> Stage:
        stage = classifier_stage(
            context, _scaled, epochs=stage2_epochs, lr=stage2_lr, cached=cached, large_epochs=5, large_in_a_row=2
        )
        return replace(stage, name=name)

    stages: list[Stage] = []
    network: Callable[[str, int, int], Network] = build_network
    if context.teacher is None:
        stages = [_features(context, chosen, form or "code")]
        if row != "I":
            stages.append(scaling("soft labels"))
    if row not in ("I", "teacher"):
        student, network_of_student = _student(context, row, temperature)
        if context.teacher is None:
            student = replace(student, new_network=network_of_student)
        else:
            network = network_of_student
        stages.append(student)
    if row == "IV-LWS":
        stages.append(scaling("rescaling"))
    if row not in ("III-hard", "III-soft", "IV-LWS"):
        return Recipe(stages=tuple(stages), network=network)
    return Recipe(tuple(stages), network, PickHead("hard" if row == "III-hard" else "soft"))


def _refuse_idle(given: Sequence[str], context: Context, row: Row, task: SelfTask) -> None:
    """Raise UsageError for an option of a phase that the recipe does not have."""
    learns = context.teacher is None and row != "plain"
    scales = row == "IV-LWS" or (learns and row != "I")
    heard = {"task": learns, "form": learns and task == "instance"}
    idle = [option for option in given if not heard.get(option, scales)]
    if not idle:
        return
    name = idle[0].replace("_", "-")
    if name == "form":
        raise UsageError("form is of the task 'instance', which this recipe does not have", fix="add --task instance")
    why = f"in row {row!r}" if context.teacher is None else "with a teacher given"
    raise UsageError(f"{idle[0]} changes nothing {why} of ssd: no phase trains by it", fix=f"leave --{name} out")


def _features(context: Context, task: SelfTask, form: Form) -> Stage:
    """Return phase I."""
    stage = replace(ce(context).stages[0], name="features")
    if task == "none":
        return stage
    chosen = pretext(task, context, own_class=form)
    assert isinstance(stage.objective, SupervisedObjective)
    return replace(
        stage,
        objective=JointObjective(stage.objective, chosen.objective),
        new_head=beside(chosen.head, aside=False),
        views=chosen.views,
    )


def _student(context: Context, row: Row, temperature: float) -> tuple[Stage, Callable[[str, int, int], Network]]:
    """Return phase III and what builds its network."""
    heads: Heads = "coupled" if row == "coupled" else "single" if row == "single" else "two"
    objective = SelfDistillation(
        SupervisedObjective(CrossEntropyLoss(context.class_counts)),
        temperature=temperature,
        heads=heads,
        teacher=context.teacher,
    )
    return context.stage(objective, "student"), build_dual_network if heads == "two" else build_network


def _scaled(head: nn.Module) -> nn.Module:
    """Return learnable scales on the classifier of the phase before: of the hard one where there are two."""
    if isinstance(head, PretextHead):
        head = head.released()
    elif isinstance(head, DualHead):
        head = head.hard
    assert isinstance(head, LinearHead)
    return LearnableScalingHead(head)
