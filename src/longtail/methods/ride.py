"""RIDE: routing diverse experts (Wang et al., ICLR 2021), stage 1: the experts. Stage 2 is `ride_assignment`."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import LDAMLoss
from longtail.losses.checks import ClassCounts, check_class_counts
from longtail.methods.card import Card
from longtail.methods.decoupling import warm_stage
from longtail.methods.deferred import drw
from longtail.methods.inference import AverageExperts
from longtail.methods.ride_distillation import DistilledExperts
from longtail.methods.rotation import rotating
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import CosineHead, LinearHead, build_expert_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.types import Batch, Progress

CARD = Card(
    title="Routing diverse experts",
    paper="Wang et al., ICLR 2021",
    arxiv="2010.01809",
    idea="Experts share the first layers, are narrower behind them, learn each by a loss of its own (LDAM, deferred "
    "weights) and are pushed to disagree in how they spread their probabilities. The test averages their logits.",
    use="Most of an ensemble's gain at half its multiplications; gains in all shot groups.",
    cost="1.5x to 1.9x with three experts",
    teacher=True,
)

PUBLISHED = {"weight_decay": 5e-4, "nesterov": True, "decay": (1e-2, 1e-4)}
_STEPS = {"warmup": 5, "schedule": "step", "milestones": (60, 80), "decay": (0.1, 0.01)}
_LARGE = {**_STEPS, "epochs": 100, "weight_decay": 2e-4, "nesterov": True}
PUBLISHED_ON = {
    "imagenet-lt": {**_LARGE, "batch_size": 256, "lr": 0.1},
    "inat18": {**_LARGE, "batch_size": 512, "lr": 0.2},
}

Form = Literal["code", "paper", "collaborative"]

# Diversity and gamma in the authors' configurations; those of CIFAR-100 hold wherever they have none.
_USUAL = (0.45, 0.05)
_USUAL_ON = {"imagenet-lt": (0.2, 0.02), "inat18": (0.2, 0.015)}


def class_temperatures(class_counts: ClassCounts, gamma: float, form: Form = "code") -> Tensor:
    """Temperatures of the diversity term: highest for the largest class, whose disagreement is softened least.

    With w_c = gamma C pi_c + 1 - gamma, the official code has T_c = w_c / max w, the paper T_c = w_c + 1 - max w.

    Args:
        class_counts: Training images per class, C whole numbers >= 0.
        gamma: In [0, 1); 0 makes all temperatures 1.
        form: ``paper``, or else the code's.

    Returns:
        Temperatures, (C,), float64.

    Raises:
        ValueError: gamma is out of range, or the paper's form leaves a class no positive temperature.
    """
    counts = check_class_counts(class_counts).double()
    if not 0 <= gamma < 1:
        raise ValueError(f"class_temperatures: gamma must lie in [0, 1), got {gamma}")
    weights = gamma * len(counts) * counts / counts.sum() + 1 - gamma
    temperatures = weights + 1 - weights.max() if form == "paper" else weights / weights.max()
    if temperatures.min() <= 0:
        raise ValueError(
            f"class_temperatures: gamma={gamma} is too large for these class counts: the paper's form gives a "
            f"temperature of {temperatures.min():.3g}"
        )
    return temperatures


def spread_from_mean(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Diversity as in the official code: mean(T)^2 sum_e KL(softmax(mean(z) / T) || softmax(z_e / T)).

    No gradient passes through the mean of the logits.

    Args:
        logits: Expert logits, (E, B, C).
        temperatures: One for each class, (C,).

    Returns:
        Scalar, mean over the batch.
    """
    mean = (logits.mean(0).detach() / temperatures).log_softmax(-1)
    each = (logits / temperatures).log_softmax(-1)
    return temperatures.mean() ** 2 * (mean.exp() * (mean - each)).sum((0, 2)).mean()


def spread_between_pairs(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Diversity as in the paper: 1 / (E - 1) sum_e sum_(j != e) KL(softmax(z_e / T) || softmax(z_j / T)).

    Args:
        logits: Expert logits, (E, B, C); the gradient passes through both sides.
        temperatures: One for each class, (C,).

    Returns:
        Scalar, mean over the batch; 0 for one expert.
    """
    log_p = (logits / temperatures).log_softmax(-1)
    # (E, E, B, C); a pair of an expert with itself adds exactly 0.
    divergences = (log_p.exp().unsqueeze(1) * (log_p.unsqueeze(1) - log_p)).sum((0, 1, 3))
    return divergences.mean() / max(len(logits) - 1, 1)


class RIDEObjective(nn.Module):
    """The sum of the experts' own losses, minus their diversity (Wang et al., RIDE, ICLR 2021).

    Args:
        objective: Each expert's loss on its logits, scale included.
        temperatures: Class temperatures of the diversity term, (C,).
        diversity: Weight of the diversity term; 0.45 on CIFAR-100. 0 leaves the experts' own losses, and a negative
            weight rewards experts that agree.
        form: ``code``: spread from the mean; ``paper``: spread between pairs; ``collaborative``: each expert's loss is
            that of the mean logits and there is no diversity term, which the official code does at weight 0.

    Source: github.com/frank-xwang/RIDE-LongTailRecognition, model/loss.py.
    """

    temperatures: Tensor

    def __init__(
        self, objective: SupervisedObjective, temperatures: Tensor, *, diversity: float = 0.45, form: Form = "code"
    ) -> None:
        super().__init__()
        self.objective = objective
        self.diversity = diversity
        self.form = form
        self.register_buffer("temperatures", temperatures, persistent=False)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch; ``progress`` is not used."""
        return self.loss(network(batches[0].images), batches[0])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of a batch's expert logits (E, B, C)."""
        if self.form == "collaborative":
            return len(logits) * self.objective.loss(logits.mean(0), batch)
        total = torch.stack([self.objective.loss(each, batch) for each in logits]).sum()
        if self.diversity == 0:
            return total
        spread = spread_from_mean if self.form == "code" else spread_between_pairs
        return total - self.diversity * spread(logits, self.temperatures.to(logits.dtype))

    def extra_repr(self) -> str:
        """Describe the diversity term."""
        low, high = float(self.temperatures.min()), float(self.temperatures.max())
        return f"diversity={self.diversity}, form={self.form!r}, temperatures={low:.6g}..{high:.6g}"


def ride(
    context: Context,
    *,
    experts: int = 3,
    form: Form = "code",
    diversity: float | None = None,
    gamma: float | None = None,
    reduced: bool = True,
    classifier: Literal["cosine", "linear"] = "cosine",
    max_m: float = 0.5,
    s: float = 30.0,
    distill_weight: float = 1.0,
    distill_temperature: float = 1.5,
) -> Recipe:
    """L = sum_e LDAM(z_e, y) - diversity mean(T)^2 KL(softmax(mean(z) / T) || softmax(z_e / T)); DRW from 80 % on.

    T is 1 until the weights set in and class_temperatures from there on. With ``--teacher RUN``, in the paper a RIDE of
    six experts, the mean logits learn from the teacher's as well, see `DistilledExperts`. Under ``published`` on CIFAR
    also the code's weight decay 5e-4, Nesterov momentum and rotation by up to 15 degrees.

    Args:
        context: Class counts and budget.
        experts: Number of experts; 3 in the paper's main table.
        form: ``code``: as above; ``paper``: -diversity / (E - 1) sum_(j != e) KL(p_e || p_j), with the temperatures
            from the first epoch on; ``collaborative``: one loss on the mean logits, no diversity.
        diversity: Weight of the diversity term; default 0.45, the code's on CIFAR-100, and under ``published`` 0.2 on
            ImageNet-LT and iNaturalist 2018; 0: only the experts' own losses.
        gamma: How far temperatures follow class frequencies; default 0.05, the code's on CIFAR, and under
            ``published`` 0.02 on ImageNet-LT and 0.015 on iNaturalist 2018.
        reduced: Give each expert three quarters of the channels behind the shared layers.
        classifier: ``cosine``: s times the cosine, as in all official configurations; ``linear``: with bias and
            without a scale, as in a row of H2T's table.
        max_m: LDAM's margin of the rarest class.
        s: Scale of the cosines, part of the network; also of the margins, with either classifier.
        distill_weight: Weight of the distillation, where there is a teacher; 1 in the official configurations.
        distill_temperature: Temperature of the distillation; 1.5 in the official configurations.

    Raises:
        UsageError: A number is out of range.
    """
    usual = _USUAL_ON.get(context.dataset, _USUAL) if context.protocol == "published" else _USUAL
    diversity, gamma = usual[0] if diversity is None else diversity, usual[1] if gamma is None else gamma
    rules = (experts >= 1, math.isfinite(diversity), s > 0, distill_weight >= 0, distill_temperature > 0)
    if not all(rules):
        raise UsageError(
            f"ride: experts is {experts}, diversity {diversity}, s {s}, distill_weight {distill_weight} and "
            f"distill_temperature {distill_temperature}; they must be at least 1, finite, above 0, at least 0 and "
            "above 0"
        )
    try:
        temperatures = class_temperatures(context.class_counts, gamma, form)
    except ValueError as error:
        raise UsageError(str(error), fix="use a smaller --gamma") from error
    # The network applies the scale, so the margins are scaled here.
    loss = SupervisedObjective(LDAMLoss(context.class_counts, max_m=s * max_m, s=1.0))
    plain = drw(Recipe(stages=(context.stage(loss),)), context)
    rotates = context.protocol == "published" and context.on_cifar
    augment = rotating(context.augment) if rotates else context.augment
    objectives: list[nn.Module] = []
    for stage in plain.stages:
        assert isinstance(stage.objective, SupervisedObjective)
        flat = form == "code" and stage.objective.criterion.class_weights is None
        softened = torch.ones_like(temperatures) if flat else temperatures
        objectives.append(RIDEObjective(stage.objective, softened, diversity=diversity, form=form))
    head: dict[str, Any] = {"head": CosineHead, "scale": s} if classifier == "cosine" else {"head": LinearHead}
    network = partial(build_expert_network, experts=experts, shared_stem=True, reduced=reduced, **head)
    last = replace(warm_stage(context, epochs=None, lr=None, cached=None), batch_norm="eval")
    last = replace(last, objective=copy.deepcopy(objectives[0]))
    if context.teacher is not None:
        # The repetition is in effect a higher learning rate, which is the budget's business elsewhere.
        repeated = context.protocol == "published" and form != "paper"
        taught = partial(DistilledExperts, weight=distill_weight, temperature=distill_temperature, repeated=repeated)
        objectives = [taught(objective, context.teacher) for objective in objectives]
    stages = tuple(
        replace(stage, objective=objective, augment=augment)
        for stage, objective in zip(plain.stages, objectives, strict=True)
    )
    return Recipe(stages=stages, network=network, inference=AverageExperts(), classifier=last)
