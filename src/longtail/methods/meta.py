"""What the meta re-weighting methods share: the look-ahead step, the meta-gradient in one forward pass, the record.

All of them weigh the images of a batch by asking: if the network took one step of gradient descent on this batch, would
a small balanced development set D be better off? With per-sample losses L_i(theta) and coefficients a_i of them,

    theta~ = theta - eta sum_i a_i grad L_i(theta),      dL_D(theta~)/da_i = -eta <grad L_D(theta~), grad L_i(theta)>.

theta~ is linear in a, so that this is exact, and the products of all images are one derivative of theta -> L(theta)
along v = grad L_D(theta~). The published codes get it by differentiating through the step (a second backward pass
through the first one); here it is one forward pass, see `longtail.networks.tangent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from longtail.augment import Compose, RandomCrop
from longtail.errors import UsageError
from longtail.losses import ClassCountLoss
from longtail.losses.base import upcast
from longtail.networks.tangent import ConvolutionRecord, call_at, derivative_along, trainable_parameters
from longtail.training.budget import Context
from longtail.training.world import sum_over_processes
from longtail.types import Batch

DECADES = (-12, 2)
"""Powers of ten between which `WeightRecord` counts the sizes of terms."""
PER_DECADE = 10


@dataclass(frozen=True)
class Forwarded:
    """One pass of a training batch at the network's own parameters.

    Attributes:
        batch: The batch.
        losses: Loss of each image, (B,), with the graph of the pass.
        record: What `derivative_along` takes over from the pass.
    """

    batch: Batch
    losses: Tensor
    record: ConvolutionRecord


def augmentation(context: Context) -> Compose:
    """Return the training transforms, under ``published`` with crops padded by reflection as in both CIFAR codes."""
    if context.protocol != "published":
        return context.augment
    steps = context.augment.transforms
    return Compose(tuple(replace(t, mode="reflect") if isinstance(t, RandomCrop) else t for t in steps))


def losses_of(criterion: ClassCountLoss, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the unweighted loss of each image, (B,), in float32 or better."""
    return criterion.sample_losses(upcast(logits), targets)


def forward(network: nn.Module, batch: Batch, criterion: ClassCountLoss) -> Forwarded:
    """Pass a training batch through the network: the only pass that moves the running statistics."""
    record = ConvolutionRecord()
    with _eager(), record:
        logits = network(batch.images)
    return Forwarded(batch, losses_of(criterion, logits, batch.targets), record)


def gains(
    network: nn.Module,
    passed: Forwarded,
    dev: Batch,
    criterion: ClassCountLoss,
    dev_criterion: ClassCountLoss,
    *,
    coefficients: Tensor | None,
    eta: float,
) -> Tensor:
    """How much the development loss falls at theta~ for each unit of an image's gradient: <grad L_D(theta~), grad L_i>.

    Everything but the given pass runs on copies of the running statistics. Under autocast these passes have its
    precision, as those of a plain step have; parameters, their gradients and the products are float32.

    Args:
        network: In training mode.
        passed: The training batch's pass; its graph is kept.
        dev: The development batch D.
        criterion: L.
        dev_criterion: L_D, mean over the batch.
        coefficients: a, (B,), without graph; None for zeros, so that theta~ = theta.
        eta: Size of the look-ahead step.

    Returns:
        (B,), without graph.
    """
    batch = passed.batch
    with _eager():
        ahead = look_ahead(trainable_parameters(network), passed.losses, coefficients, eta)
        direction = dev_gradient(network, ahead, dev, dev_criterion)
        return derivative_along(
            network,
            direction,
            batch.images,
            lambda logits: losses_of(criterion, logits, batch.targets),
            passed.record,
        )


def look_ahead(
    parameters: Mapping[str, Tensor], losses: Tensor, coefficients: Tensor | None, eta: float
) -> dict[str, Tensor]:
    """Return theta - eta sum_i a_i grad L_i(theta), fresh leaves by name; the losses' graph is kept."""
    values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    if coefficients is not None:
        gradients = torch.autograd.grad(losses, list(parameters.values()), coefficients, retain_graph=True)
        for value, gradient in zip(values.values(), sum_over_processes(gradients), strict=True):
            value.sub_(gradient, alpha=eta)
    return {name: value.requires_grad_() for name, value in values.items()}


def dev_gradient(
    network: nn.Module, parameters: Mapping[str, Tensor], dev: Batch, criterion: ClassCountLoss
) -> dict[str, Tensor]:
    """Return the gradient of the mean loss of a development batch at the given parameters, by name."""
    with torch.enable_grad():
        loss = losses_of(criterion, call_at(network, parameters, dev.images), dev.targets).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
    *total, size = sum_over_processes((*gradients, loss.new_full((), len(dev))))
    return {name: gradient / size for name, gradient in zip(parameters, total, strict=True)}


def batch_total(batch: Batch) -> Tensor:
    """Return the number of images of the whole step, over all processes, as a scalar tensor."""
    return sum_over_processes((torch.full((), float(len(batch)), device=batch.images.device),))[0]


def _eager() -> AbstractContextManager[object]:
    """Return a context in which a compiled backbone runs as it is written.

    Compiled code gives its buffers away in the backward pass, and the meta methods go backward twice.
    """
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


class WeightRecord(nn.Module):
    """What images of each class weighed in each epoch, kept in buffers: saved and resumed with the objective.

    Args:
        num_classes: Number of classes C.
        epochs: Epochs E of the stage.
        first_epoch: The stage's first epoch within its schedule.

    Attributes:
        count: Images seen, (E, C).
        weight: Sum of their weights, (E, C).
        term: Sum of the learned part of the weights, (E, C).
        sizes: How many learned parts are of which size, (E, 10 for each decade from 1e-12 to 1e2); smaller and larger
            ones count in the outermost bins.
    """

    count: Tensor
    weight: Tensor
    term: Tensor
    sizes: Tensor

    def __init__(self, num_classes: int, epochs: int, first_epoch: int = 0) -> None:
        super().__init__()
        self.first_epoch = first_epoch
        for name in ("count", "weight", "term"):
            self.register_buffer(name, torch.zeros(epochs, num_classes, dtype=torch.float64))
        self.register_buffer("sizes", torch.zeros(epochs, (DECADES[1] - DECADES[0]) * PER_DECADE, dtype=torch.float64))

    @torch.no_grad()
    def add(self, epoch: int, targets: Tensor, weights: Tensor, terms: Tensor) -> None:
        """Add a batch: ``weights`` and, of them, the learned ``terms``, (B,), of images of classes ``targets``."""
        row = epoch - self.first_epoch
        for table, values in ((self.count, torch.ones_like(weights)), (self.weight, weights), (self.term, terms)):
            table[row].index_add_(0, targets, values.to(table.dtype))
        bins = (terms.abs().double().log10().clamp(*DECADES) - DECADES[0]) * PER_DECADE
        bins = bins.long().clamp(0, self.sizes.shape[1] - 1)  # also where a diverging run has NaN
        self.sizes[row].index_add_(0, bins, torch.ones_like(terms, dtype=self.sizes.dtype))

    def extra_repr(self) -> str:
        """Describe the span."""
        return f"epochs={len(self.count)}, num_classes={self.count.shape[1]}, first_epoch={self.first_epoch}"


def need_dev(context: Context, method: str) -> None:
    """Refuse a method that needs a development set where there is none.

    Raises:
        UsageError: There is none. None is taken by default, because it changes which training images are left, and
            methods that are compared must have the same ones.
    """
    if context.dev_per_class < 1:
        raise UsageError(
            f"{method} needs a small balanced development set, and none is held out",
            fix="train with --dev-per-class 10, as the papers do on CIFAR; LongTailClassifier has no such set",
        )
