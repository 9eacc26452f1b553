"""M2m: translating images of frequent classes into rare ones (Kim, Jeong and Shin, CVPR 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from longtail.augment import Normalize
from longtail.errors import UsageError
from longtail.losses import cross_entropy_loss
from longtail.losses.base import upcast
from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.methods.deferred import switch_epoch
from longtail.methods.ldam import ldam
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import Network, Teacher
from longtail.sampling import ClassBalancedSampling, DeferredSampling, InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.types import Batch, Progress

CARD = Card(
    title="Major-to-minor translation",
    paper="Kim, Jeong and Shin, CVPR 2020",
    arxiv="2004.00431",
    idea="Where a class-balanced draw would repeat an image of a rare class, push an image of a frequent class, by a "
    "few steps on its pixels, until a trained classifier takes it for the rare one, and learn from that.",
    use="Where rare classes have so few images that repeating them overfits. Costs several trainings; its settings for "
    "CIFAR-100 were not released.",
    cost="4x, 3x with a teacher at hand",
    teacher=True,
)

STEPS, STEP_SIZE, START_RADIUS = 10, 0.1, 0.5


class MajorToMinor(nn.Module):
    """A loss on images of which some are translated from a frequent class k0 to a rare one k (Kim et al., CVPR 2020).

    An image of class k is replaced with probability 1 - n_k / n_1. Its source is an image of the batch, drawn in
    proportion to p(k0, k) = 1 - beta^max(n_k0 - n_k, 0), and is moved by

        x* = argmin_x CE(g(x), k) + lam f_k0(x),

    ten steps of length 0.1 down the gradient in pixels of 0..1. It takes the place if g gives class k at least
    ``gamma``, and then with probability p(k0, k) only.

    Args:
        objective: The loss of the learner f.
        class_counts: Training images per class, n.
        normalize: How pixels become the network's input.
        switch: Epoch from which images are translated.
        beta: See above.
        lam: Weight of the learner's logit of the source class.
        gamma: How sure g must be of the new class.
        guide: g, a trained classifier; None: the network of the stage before.

    Source: github.com/alinlab/M2m, train.py and utils.py.
    """

    takes_mixed = False
    counts: Tensor
    std: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self,
        objective: SupervisedObjective,
        class_counts: Sequence[int],
        normalize: Normalize,
        *,
        switch: int,
        beta: float = 0.999,
        lam: float = 0.5,
        gamma: float = 0.9,
        guide: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.switch = switch
        self.beta = beta
        self.lam = lam
        self.gamma = gamma
        self.guide = guide
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (normalize.mean, normalize.std))
        self.register_buffer("counts", torch.tensor(class_counts, dtype=torch.float32), persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.register_buffer("lowest", -mean / std, persistent=False)
        self.register_buffer("highest", (1 - mean) / std, persistent=False)

    def prepare(self, before: Network, network: Network) -> None:
        """Take the network of the stage before as g where none is given."""
        if self.guide is None:
            self.guide = Teacher(before)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of the first batch, with translated images from the switch on."""
        batch = batches[0]
        if progress.epoch >= self.switch:
            batch = replace(batch, images=self.rebalanced(network, batch))
        return self.objective.loss(network(batch.images), batch)

    def rebalanced(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the images of a class-balanced batch, some of them translated from other images of it."""
        n = self.counts[batch.targets]
        chances = self.chances(n)
        wanted = (torch.rand_like(n) < 1 - n / self.counts.max()) & (chances.sum(1) > 0)
        rows = wanted.nonzero().flatten()
        if len(rows) == 0:
            return batch.images
        sources = torch.multinomial(chances[rows], 1).squeeze(1)
        moved, sure = self.translate(network, batch.images[sources], batch.targets[sources], batch.targets[rows])
        kept = sure & (torch.rand_like(n[rows]) < chances[rows, sources])
        images = batch.images.clone()
        images[rows[kept]] = moved[kept]
        return images

    def chances(self, n: Tensor) -> Tensor:
        """Return p(k0, k) of every pair of a target (rows) and a source (columns), (B, B), for class sizes n, (B,)."""
        return 1 - self.beta ** (n.unsqueeze(0) - n.unsqueeze(1)).clamp(min=0)

    def translate(self, network: nn.Module, images: Tensor, sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Move images towards other classes.

        Args:
            network: The learner f; in evaluation mode meanwhile.
            images: (R, C, H, W).
            sources: Their classes k0, (R,).
            targets: The classes k that they shall have, (R,).

        Returns:
            The moved images, and where g is sure of the class, (R,), bool.
        """
        assert self.guide is not None
        training = network.training
        network.eval()
        with torch.compiler.set_stance("force_eager"), torch.enable_grad():
            x = self._step(images, torch.randn_like(images), START_RADIUS * (images.shape[1] / len(images)) ** 0.5)
            for _ in range(STEPS):
                x.requires_grad_()
                pull = cross_entropy_loss(upcast(self.guide.judge(x)), targets).sum()
                push = upcast(network(x)).gather(1, sources.unsqueeze(1)).sum()
                (gradient,) = torch.autograd.grad(pull + self.lam * push, x)
                x = self._step(x.detach(), -self.std.reciprocal() * gradient, STEP_SIZE)
        network.train(training)
        confidences = upcast(self.guide(x)).softmax(1).gather(1, targets.unsqueeze(1)).squeeze(1)
        return x, confidences >= self.gamma

    def _step(self, x: Tensor, direction: Tensor, length: float) -> Tensor:
        """Move each image by a length in pixels of 0..1, which stay in that range; directions are of pixels too."""
        norms = direction.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        return torch.clamp(x + direction / norms * length / self.std, self.lowest, self.highest)

    def extra_repr(self) -> str:
        """Describe the numbers."""
        return f"switch={self.switch}, beta={self.beta}, lam={self.lam}, gamma={self.gamma}"


def m2m(
    context: Context,
    *,
    loss: Literal["ldam", "ce"] = "ldam",
    beta: float = 0.999,
    lam: float = 0.5,
    gamma: float = 0.9,
    start: float = 0.8,
) -> Recipe:
    """Stage 1: cross-entropy, the classifier g. Stage 2: a fresh f, from 80 % of the epochs on with translated images.

    From then on classes are drawn equally often, and an image of class k is replaced, with probability 1 - n_k / n_1,
    by x* = argmin_x CE(g(x), k) + lam f_k0(x), which starts at an image of a larger class k0; see `MajorToMinor`.

    Args:
        context: Class counts, budget and perhaps a teacher, which is then g: there is no stage 1.
        loss: Of f: ``ldam`` (cosines, without class weights; the published rows) or ``ce``.
        beta: How much larger the source's class must be: p(k0, k) = 1 - beta^max(n_k0 - n_k, 0).
        lam: Weight of the source class's logit.
        gamma: How sure g must be of the new class.
        start: Share of the epochs before the switch.

    Raises:
        UsageError: A number is out of range, or there are too few epochs for a switch.
    """
    if not (0 <= beta <= 1 and lam >= 0 and 0 <= gamma <= 1):
        raise UsageError(
            f"m2m: beta is {beta}, lam {lam} and gamma {gamma}; they must lie in 0..1, at least 0, in 0..1"
        )
    base = ldam(context) if loss == "ldam" else ce(context)
    (stage,) = base.stages
    assert isinstance(stage.objective, SupervisedObjective)
    normalize = next(t for t in context.plain.transforms if isinstance(t, Normalize))
    switch = switch_epoch(stage.epochs, start)
    objective = MajorToMinor(
        stage.objective,
        context.class_counts,
        normalize,
        switch=switch,
        beta=beta,
        lam=lam,
        gamma=gamma,
        guide=context.teacher,
    )
    sampling = DeferredSampling(InstanceSampling(), ClassBalancedSampling(), switch)
    learning = replace(stage, name="learner", objective=objective, sampling=(sampling,))
    if context.teacher is not None:
        return base.with_stages(learning)
    guide = replace(ce(context).stages[0], name="guide")
    learning = replace(learning, new_network=base.network)
    return Recipe((guide, learning), inference=base.inference)
