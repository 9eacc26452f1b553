"""DiVE: distilling virtual examples (He et al., ICCV 2021)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import (
    BalancedSoftmaxLoss,
    ClassCountLoss,
    CrossEntropyLoss,
    distillation_loss,
    flatten_probabilities,
    soft_targets,
    virtual_examples,
)
from longtail.losses.checks import ClassCounts, check_class_counts
from longtail.methods.bsce import bsce
from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Network, Teacher, build_network
from longtail.training.budget import Context
from longtail.training.recipe import Look, Recipe
from longtail.types import Batch, Progress

CARD = Card(
    title="Distilling virtual examples",
    paper="He, Wu and Wei, ICCV 2021",
    arxiv="2103.15042",
    idea="A teacher's prediction on an image counts as fractions of an example of every class. A student that learns "
    "them beside the labels profits when these virtual examples are spread flat over the classes, so the teacher is "
    "flattened on purpose.",
    use="On top of any good teacher. With strong augmentation the paper's temperature is too high.",
    cost="2.3x, 1.3x with a teacher at hand",
    teacher=True,
)

# Both trainings of the paper follow the recipe of BBN.
PUBLISHED = {"milestones": (120, 160), "nesterov": True}

Student = Literal["bsce", "ce"]
Target = Literal["teacher", "mixed"]


class Row(NamedTuple):
    """A row of the paper's Table 6."""

    student: Student
    target: Target
    temperature: float
    power: float


ROWS = {
    1: Row("bsce", "teacher", 3.0, 0.5),
    2: Row("ce", "mixed", 1.0, 0.5),
    3: Row("ce", "teacher", 3.0, 0.5),
    4: Row("ce", "teacher", 1.0, 1.0),
    5: Row("ce", "mixed", 1.0, 1.0),
    6: Row("ce", "mixed", 3.0, 0.5),
}
_LOSSES: dict[Student, type[ClassCountLoss]] = {"bsce": BalancedSoftmaxLoss, "ce": CrossEntropyLoss}
_TEACHERS: dict[Student, Callable[[Context], Recipe]] = {"bsce": bsce, "ce": ce}
_HIGHEST = 20
_LARGE = 4


def choose_flatness(logits: Tensor, class_counts: ClassCounts) -> tuple[float, float]:
    """Choose temperature and power by the paper's rule: the tail should have slightly more examples than the head.

    The smallest whole temperature at which the smallest third of the classes has, in the mean, as many virtual
    examples as the largest third; 20 where none has. From 4 on it is halved and the power normalisation does the rest.

    Args:
        logits: The teacher's logits of the training images, (N, C).
        class_counts: Training images per class, (C,).

    Returns:
        Temperature and power.
    """
    order = check_class_counts(class_counts).argsort(descending=True, stable=True).to(logits.device)
    third = max(len(order) // 3, 1)

    def flat(temperature: int) -> bool:
        examples = virtual_examples(logits, temperature)[order]
        return bool(examples[-third:].mean() >= examples[:third].mean())

    chosen = next((t for t in range(1, _HIGHEST) if flat(t)), _HIGHEST)
    return (chosen / 2, 0.5) if chosen >= _LARGE else (float(chosen), 1.0)


class DiVEObjective(nn.Module):
    """Labels and a teacher's flattened virtual examples (He et al., DiVE, ICCV 2021).

    ``target="teacher"``: (1 - alpha) l(z, y) + alpha T^2 KL(t^T || softmax(z / T)), where t^T is the teacher's
    softmax(z~ / T), power-normalised, and l is ``base``; no prior enters the second term.
    ``target="mixed"``: T^2 KL(f((1 - alpha) y + alpha t) || softmax(z / T)), where f flattens the mix as a whole, the
    true label with it; ``base`` is not used.

    Args:
        base: The student's loss on the labels.
        alpha: Weight of the virtual examples, in [0, 1].
        temperature: T > 0 of teacher and student.
        power: Power p of the normalisation, > 0; 1 for none.
        target: What is flattened.
        teacher: The teacher; None: the network of the stage before.
        class_counts: Given, temperature and power are chosen by `choose_flatness` when the stage begins.

    Source: github.com/zhangyongshun/BagofTricks-LT, lib/loss/loss_impl/kld_loss.py (written in the authors' group).
    """

    temperature: Tensor
    power: Tensor

    def __init__(
        self,
        base: SupervisedObjective,
        *,
        alpha: float = 0.5,
        temperature: float = 3.0,
        power: float = 0.5,
        target: Target = "teacher",
        teacher: Teacher | None = None,
        class_counts: ClassCounts | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self.alpha = alpha
        self.target = target
        self.teacher = teacher
        self.class_counts = class_counts
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float64))
        self.register_buffer("power", torch.tensor(power, dtype=torch.float64))

    def prepare(self, before: Network, network: Network) -> None:
        """Take the network of the stage before as teacher where none is given."""
        if self.teacher is None:
            self.teacher = Teacher(copy.deepcopy(before))

    def measure(self, look: Look, targets: Tensor) -> None:
        """Choose temperature and power from the teacher's logits of the training set, where that was asked for."""
        if self.class_counts is not None:
            assert self.teacher is not None
            temperature, power = choose_flatness(look(self.teacher), self.class_counts)
            self.temperature.fill_(temperature)
            self.power.fill_(power)

    def chosen(self) -> dict[str, float]:
        """Return temperature and power where the rule chose them."""
        if self.class_counts is None:
            return {}
        return {"temperature": float(self.temperature), "power": float(self.power)}

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; teacher and student see the same images."""
        logits = network(batches[0].images)
        if self.alpha == 0 and self.target == "teacher":
            return self.base.loss(logits, batches[0])
        assert self.teacher is not None
        return self.loss(logits, self.teacher(batches[0].images), batches[0])

    def loss(self, logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of the student's and the teacher's logits (B, C)."""
        if self.target == "mixed":
            mixed = (1 - self.alpha) * _labels(batch, logits) + self.alpha * soft_targets(teacher_logits)
            targets = flatten_probabilities(mixed, self.temperature, self.power)
            return distillation_loss(logits, targets, self.temperature).mean()
        targets = soft_targets(teacher_logits, self.temperature, self.power)
        distilled = distillation_loss(logits, targets, self.temperature).mean()
        return (1 - self.alpha) * self.base.loss(logits, batch) + self.alpha * distilled

    def extra_repr(self) -> str:
        """Describe the target."""
        flatness = f"temperature={float(self.temperature):g}, power={float(self.power):g}"
        return f"alpha={self.alpha}, {flatness}, target={self.target!r}, chosen={self.class_counts is not None}"


def _labels(batch: Batch, logits: Tensor) -> Tensor:
    """Return the labels as distributions, (B, C); those of mixed images are mixed."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    labels = F.one_hot(batch.targets, logits.shape[-1]).to(dtype)
    if batch.lam is None or batch.mixed_targets is None:
        return labels
    share = batch.lam.to(dtype)[:, None]
    return share * labels + (1 - share) * F.one_hot(batch.mixed_targets, logits.shape[-1]).to(dtype)


def dive(
    context: Context,
    *,
    row: int = 1,
    teacher_loss: Student | None = None,
    student: Student | None = None,
    target: Target | None = None,
    temperature: float | None = None,
    power: float | None = None,
    alpha: float = 0.5,
    flatness: Literal["given", "rule"] = "given",
) -> Recipe:
    """Stage 1: balanced softmax, the teacher. Stage 2: a fresh student, L = (1 - a) BSCE(z, y) + a T^2 KL(t^T || s^T).

    t^T is the teacher's softmax(z~ / T), power-normalised; s^T = softmax(z / T); the prior of the balanced softmax is
    in its own term only. With a teacher given (any finished run) there is no stage 1. Under ``published`` on CIFAR the
    rate drops at 120 and 160, with Nesterov momentum, as in BBN's recipe.

    Args:
        context: Class counts, budget and perhaps a teacher.
        row: Row of the paper's Table 6, from which ``student``, ``target``, ``temperature`` and ``power`` take their
            defaults; 1 is the method.
        teacher_loss: The loss of stage 1: ``bsce``, the default, or ``ce``, as in the paper's Figure 1.
        student: The student's loss on the labels: ``bsce`` or ``ce``.
        target: What is flattened: ``teacher``: its probabilities; ``mixed``: labels and probabilities together.
        temperature: T of teacher and student; the paper's 3 for CIFAR, 2 in its group's code.
        power: Power of the normalisation; 0.5 in the paper, 1 leaves it out.
        alpha: Weight of the virtual examples; 0 leaves the student's loss alone.
        flatness: ``given``: temperature and power as above; ``rule``: chosen from the teacher's virtual examples, see
            `choose_flatness`.

    Raises:
        UsageError: A value is out of range, or two of them do not go together.
    """
    known = _row(row)
    chosen = Row(
        known.student if student is None else student,
        known.target if target is None else target,
        known.temperature if temperature is None else temperature,
        known.power if power is None else power,
    )
    _check(chosen, alpha)
    if flatness == "rule":
        _check_rule(chosen, given=not (temperature is None and power is None))
    if context.teacher is not None and teacher_loss is not None:
        raise UsageError("teacher_loss is of stage 1, which a given teacher stands for", fix="leave --teacher-loss out")
    objective = DiVEObjective(
        SupervisedObjective(_LOSSES[chosen.student](context.class_counts)),
        alpha=alpha,
        temperature=chosen.temperature,
        power=chosen.power,
        target=chosen.target,
        teacher=context.teacher,
        class_counts=context.class_counts if flatness == "rule" else None,
    )
    learning = context.stage(objective, "student")
    if context.teacher is not None:
        return Recipe(stages=(learning,))
    teaching = replace(_TEACHERS[teacher_loss or "bsce"](context).stages[0], name="teacher")
    return Recipe(stages=(teaching, replace(learning, new_network=build_network)))


def _row(row: int) -> Row:
    if row not in ROWS:
        raise UsageError(f"row is {row}; Table 6 has the rows {', '.join(map(str, ROWS))}")
    return ROWS[row]


def _check_rule(chosen: Row, *, given: bool) -> None:
    if given:
        raise UsageError(
            "flatness 'rule' chooses temperature and power itself", fix="leave --temperature and --power out"
        )
    if chosen.target == "mixed":
        raise UsageError(
            "flatness 'rule' looks at the teacher's virtual examples, and target 'mixed' flattens the labels with them",
            fix="use --target teacher or a row with it: 1, 3 or 4",
        )


def _check(chosen: Row, alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha}; it must lie between 0 and 1 (the weight of the virtual examples)")
    if not (chosen.temperature > 0 and chosen.power > 0):
        raise UsageError(f"temperature is {chosen.temperature} and power {chosen.power}; both must be above 0")
    if chosen.target == "mixed" and chosen.student != "ce":
        raise UsageError(
            f"target 'mixed' holds the labels itself, so there is no loss of them to be {chosen.student!r}",
            fix="use --student ce or --target teacher",
        )
