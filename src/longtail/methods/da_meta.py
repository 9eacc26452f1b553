"""Class-balanced weights and a meta-learned weight of each image (Jamal et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import ClassCountLoss, CrossEntropyLoss, FocalLoss, LDAMLoss, effective_number_weights
from longtail.methods.card import Card
from longtail.methods.deferred import split
from longtail.methods.inference import ScaleLogits
from longtail.methods.ldam import cosine_network
from longtail.methods.meta import Forwarded, WeightRecord, augmentation, batch_total, forward, gains, need_dev
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import build_network
from longtail.sampling import InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe, Stage
from longtail.training.world import sum_over_processes
from longtail.types import Batch, Progress

CARD = Card(
    title="Meta re-weighting from a domain adaptation perspective",
    paper="Jamal et al., CVPR 2020",
    arxiv="2003.10780",
    idea="An image weighs w_y + eps_i: its class's effective-number weight, and a term that each step learns from "
    "whether the image's gradient would help on a small balanced development set. After 80 % plain training.",
    use="Where a few labelled images per class can be held out. With the published settings eps is tiny, and the "
    "gain is that of deferred class weights: compare with --tau 0, and see --strength.",
    cost="about 1.5x: a step of the last 20 % costs 3 to 4 plain ones",
)

PUBLISHED = {"batch_size": 100, "weight_decay": 5e-4, "nesterov": True, "warmup": 0}

Form = Literal["code", "paper"]
LossName = Literal["ce", "focal", "ldam"]


@dataclass(frozen=True)
class LookAhead:
    """Size of the look-ahead step theta~ = theta - eta grad sum_i w_i L_i.

    Attributes:
        eta: Step size at the beginning of the stage; it falls with the learning rate. None: the learning rate itself.
        first_lr: Learning rate at the beginning of the stage.
        mean: Step on the mean over the batch instead of the sum.
    """

    eta: float | None
    first_lr: float
    mean: bool = False

    def size(self, lr: float) -> float:
        """Return the step size at a learning rate."""
        return lr if self.eta is None else self.eta * lr / self.first_lr

    def divisor(self, batch: Batch) -> Tensor | float:
        """Return what the summed losses are divided by."""
        return batch_total(batch) if self.mean else 1.0


class WeighedObjective(nn.Module):
    """mean_i (w_{y_i} + eps_i) L_i, with eps learned anew in each batch and then forgotten (Jamal et al., CVPR 2020).

    eps = -tau dL_D(theta~)/d eps at eps = 0, for theta~ = theta - eta grad sum_i (w_{y_i} + eps_i) L_i(theta): neither
    clipped nor normalised, so that a weight may be negative. Without a term this is deferred class weighting, and only
    the first batch is used.

    Args:
        criterion: L, without class weights.
        dev_criterion: L_D.
        class_weights: w, (C,).
        step: The look-ahead step.
        tau: Step size of eps; 0.01 in the official code, 0 for no term.
        strength: Scale eps in each batch so that mean |eps_i| is this share of the batch's mean w, instead of ``tau``.
        record: What the images weighed.

    Source: github.com/abdullahjamal/Longtail_DA, C-LT/main.py.
    """

    class_weights: Tensor

    def __init__(
        self,
        criterion: ClassCountLoss,
        dev_criterion: ClassCountLoss,
        class_weights: Tensor,
        step: LookAhead,
        *,
        tau: float,
        strength: float | None,
        record: WeightRecord,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.dev_criterion = dev_criterion
        self.step = step
        self.tau = tau
        self.strength = strength
        self.record = record
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the training batch, the first; the last is the development batch."""
        passed = forward(network, batches[0], self.criterion)
        targets, losses = batches[0].targets, passed.losses
        weights = self.class_weights.to(losses.dtype)[targets]
        terms = torch.zeros_like(weights)
        if learns(self.tau, self.strength):
            terms = self.terms(network, passed, batches[-1], weights, progress.lr)
        self.record.add(progress.epoch, targets, weights + terms, terms)
        return ((weights + terms) * losses).sum() / len(losses)

    def terms(self, network: nn.Module, passed: Forwarded, dev: Batch, weights: Tensor, lr: float) -> Tensor:
        """Return eps, (B,), of a batch whose class weights are ``weights``, (B,)."""
        eta, divisor = self.step.size(lr), self.step.divisor(passed.batch)
        gain = gains(network, passed, dev, self.criterion, self.dev_criterion, coefficients=weights / divisor, eta=eta)
        if self.strength is None:
            return self.tau * eta * gain / divisor
        size, wanted = sum_over_processes((gain.abs().sum(), self.strength * weights.sum()))
        return gain * (wanted / size.masked_fill(size == 0, 1))

    def extra_repr(self) -> str:
        """Describe the step and the term."""
        low, high = float(self.class_weights.min()), float(self.class_weights.max())
        return f"{self.step}, tau={self.tau}, strength={self.strength}, class_weights={low:.6g}..{high:.6g}"


def learns(tau: float, strength: float | None) -> bool:
    """Return whether there is a term to learn."""
    return tau > 0 if strength is None else strength > 0


def _criteria(
    loss: LossName, context: Context, gamma: float, max_m: float, s: float
) -> tuple[ClassCountLoss, ClassCountLoss]:
    """Return L, and cross-entropy of the same logits."""
    counts = context.class_counts
    if loss == "ldam":
        return LDAMLoss(counts, max_m=max_m, s=s), LDAMLoss(counts, max_m=0.0, s=s)
    plain = CrossEntropyLoss(counts)
    return (plain if loss == "ce" else FocalLoss(counts, gamma=gamma)), plain


def da_meta(
    context: Context,
    *,
    loss: LossName = "ce",
    form: Form = "code",
    tau: float = 0.01,
    strength: float | None = None,
    eta: float | None = None,
    beta: float | None = None,
    start: float = 0.8,
    gamma: float = 1.0,
    max_m: float = 0.5,
    s: float = 30.0,
) -> Recipe:
    """Plain training, then L = mean_i (w_{y_i} + eps_i) L_i with w_c ~ (1 - beta) / (1 - beta^n_c), sum w = C.

    In each step of the second part eps starts at 0, theta~ = theta - eta grad sum_i (w_{y_i} + eps_i) L_i, and
    eps = -tau dL_D(theta~)/d eps. ``form`` says where the official code and the paper's Algorithm 1 differ:

    - ``code``: theta~ by the SUM over the batch; beta = 0.9999; L_D is cross-entropy.
    - ``paper``: theta~ by the MEAN over the batch; beta = (N - 1) / N; L_D is L.

    Under ``published`` also the code's batches of 100, weight decay 5e-4, Nesterov momentum and reflecting crops.

    Args:
        context: Class counts and budget.
        loss: L in both parts: ``ce``, ``focal`` or ``ldam`` (cosines); only ``ce`` is in the released code.
        form: ``code`` or ``paper``, see above.
        tau: Step size of eps; 0 leaves deferred class weights, and needs no development set.
        strength: Make mean ``|eps_i|`` this share of the batch's mean w, instead of ``tau``; 0.3 is a setting in which
            the term matters.
        eta: Size of the look-ahead step when the second part begins, falling with the learning rate; default: that of
            the step's learning rate, as in the code and the paper.
        beta: Of the effective number; default by ``form``.
        start: Share of the epochs before the switch; 160 of 200 in the code.
        gamma: Focusing exponent of ``focal``.
        max_m: Margin of the rarest class of ``ldam``.
        s: Scale of the cosines of ``ldam``.

    Raises:
        UsageError: A number is out of range, or there is no development set to learn eps from.
    """
    if not (tau >= 0 and (eta is None or eta > 0) and (strength is None or strength >= 0)):
        raise UsageError(f"da-meta: tau is {tau}, strength {strength} and eta {eta}; they must be >= 0, >= 0 and > 0")
    meta = learns(tau, strength)
    if meta:
        need_dev(context, "da-meta with tau > 0")
    criterion, cross_entropy = _criteria(loss, context, gamma, max_m, s)
    plain = replace(context.stage(SupervisedObjective(criterion)), augment=augmentation(context))
    early, late = split(plain, start)
    total = sum(context.class_counts)
    by_form = 0.9999 if form == "code" else (total - 1) / total
    objective = WeighedObjective(
        criterion,
        cross_entropy if form == "code" else criterion,
        effective_number_weights(context.class_counts, beta=by_form if beta is None else beta),
        LookAhead(eta, lr_at_the_start(late), mean=form == "paper"),
        tau=tau,
        strength=strength,
        record=WeightRecord(context.num_classes, late.epochs, late.first_epoch),
    )
    late = replace(late, name="meta", objective=objective, dev=(InstanceSampling(),) if meta else ())
    if loss == "ldam":
        return Recipe((early, late), cosine_network, ScaleLogits(s))
    return Recipe((early, late), build_network)


def lr_at_the_start(stage: Stage) -> float:
    """Return the learning rate of a stage's first epoch."""
    return stage.optimizer.lr * stage.schedule.factor(stage.first_epoch)
