"""Learning features without labels: rotation prediction, and instance discrimination with a momentum encoder and queue.

Both are objectives of a stage (`+ssp`) and terms of one (`ssd`). Their extra layers sit in a `PretextHead`, beside the
classifier that the network has for its evaluation and later stages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.augment import ColorJitter, Compose, Grey, RandomResizedCrop, Sometimes, quarter_turns
from longtail.errors import UsageError
from longtail.losses import cross_entropy_loss, instance_discrimination_loss
from longtail.methods.feature_queue import FeatureQueue
from longtail.networks import LinearHead, Network
from longtail.training.budget import Context
from longtail.training.world import gather_over_processes
from longtail.types import Batch, Progress

Task = Literal["rotation", "instance"]
Form = Literal["code", "formula"]

_LARGEST_QUEUE = 65_536
_WIDTH = 128
_JITTER = ColorJitter(0.4, 0.4, 0.4, 0.1)
_SCALE = (0.2, 1.0)


class PretextHead(nn.Module):
    """A classifier, and beside it the layers of a task that needs no labels.

    As a head it is the classifier: evaluation and inference rules see logits of the classes.

    Args:
        classifier: Maps features to logits of the classes.
        pretext: Maps features to what the task needs.
        aside: The classifier waits for a later stage and does not train.
    """

    def __init__(self, classifier: nn.Module, pretext: nn.Module, *, aside: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.pretext = pretext
        self._waiting = [p for p in classifier.parameters() if p.requires_grad] if aside else []
        for parameter in self._waiting:
            parameter.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of the classes."""
        logits: Tensor = self.classifier(features)
        return logits

    def released(self) -> nn.Module:
        """Return the classifier, ready to train."""
        for parameter in self._waiting:
            parameter.requires_grad_(True)
        return self.classifier


def projection(num_features: int) -> nn.Module:
    """Return MoCo v2's layers from features to embeddings: linear, ReLU, linear, 128 wide."""
    return nn.Sequential(LinearHead(num_features, num_features), nn.ReLU(), LinearHead(num_features, _WIDTH))


def embed(network: nn.Module, images: Tensor, features: Tensor | None = None) -> Tensor:
    """Return the embeddings, (B, 128), of length 1, that a network with a `PretextHead` gives images."""
    if features is None:
        features = network.features(images)  # type: ignore[operator]
    return F.normalize(network.head.pretext(features), dim=-1)  # type: ignore[union-attr, operator]


class MomentumEncoder(nn.Module):
    """A slow copy of a network, k <- m k + (1 - m) q, that makes the keys (He et al., MoCo, CVPR 2020).

    It runs in training mode. With batch statistics over the very images of the query a network can tell the pair by
    them; MoCo shuffles images over its GPUs. Here the keys' batch is shuffled and passes in two halves.

    Args:
        network: What is copied.
        momentum: m, 0.999 in the codes.
    """

    def __init__(self, network: nn.Module, momentum: float = 0.999) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).train()
        self.momentum = momentum

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move the copy's parameters towards the network's."""
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast.detach(), 1 - self.momentum)

    @torch.no_grad()
    def forward(self, images: Tensor, encode: Callable[[nn.Module, Tensor], Tensor] = embed) -> Tensor:
        """Return the keys of images, (B, d), in the images' order."""
        order = torch.randperm(len(images), device=images.device)
        halves = order.tensor_split(2) if len(images) >= 4 else (order,)
        keys = torch.cat([encode(self.network, images.index_select(0, half)) for half in halves])
        return torch.empty_like(keys).index_copy_(0, order, keys)


class RotationPrediction(nn.Module):
    """Cross-entropy of telling by which of four angles an image was turned (Gidaris et al., RotNet, ICLR 2018).

    The turned images are a forward pass of their own. Experts each tell for themselves, and the loss is their mean.
    """

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the loss of the first batch's images; ``progress`` is not used."""
        return self.loss(network, batches)

    def loss(self, network: nn.Module, batches: tuple[Batch, ...], features: Tensor | None = None) -> Tensor:
        """Return the scalar loss; ``features`` of the unturned images are of no use here."""
        images, turns = quarter_turns(batches[0].images)
        logits: Tensor = network.head.pretext(network.features(images))  # type: ignore[union-attr, operator]
        return cross_entropy_loss(logits.flatten(0, -2), turns.repeat(logits[..., 0].numel() // len(turns))).mean()


class InstanceDiscrimination(nn.Module):
    """The loss of MoCo between an image's query and the momentum encoder's key of its other view.

    -log( e^(v.v' / T) / (e^(v.v' / T) + sum_k e^(v.v'_k / T)) ), k over the queue. The keys of all
    processes enter the queue afterwards.

    Args:
        queue: Size K of the queue.
        own_class: Whether keys of the query's own class count among the others: ``formula``: they do, as in MoCo and
            in the formula of SSD; ``code``: they are left out, as in the code of SSD.
        temperature: T; 0.2 in MoCo v2 and SSD.
        momentum: Of the key encoder.
    """

    def __init__(
        self, queue: int, *, own_class: Form = "formula", temperature: float = 0.2, momentum: float = 0.999
    ) -> None:
        super().__init__()
        self.queue = FeatureQueue(queue, _WIDTH)
        self.encoder: MomentumEncoder | None = None
        self.own_class = own_class
        self.temperature = temperature
        self.momentum = momentum

    def prepare(self, before: Network, network: Network) -> None:
        """Copy the network that is about to train."""
        self.encoder = MomentumEncoder(network, self.momentum)

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the loss of the first batch, whose other view is the last batch; ``progress`` is not used."""
        return self.loss(network, batches)

    def loss(self, network: nn.Module, batches: tuple[Batch, ...], features: Tensor | None = None) -> Tensor:
        """Return the scalar loss; ``features`` of the first batch are taken where they are known."""
        assert self.encoder is not None
        batch, view = batches[0], batches[-1]
        queries = embed(network, batch.images, features)
        self.encoder.follow(network)
        keys = self.encoder(view.images)
        # A copy, since the queue changes before the backward pass.
        others = self.queue.features.clone()
        own = batch.targets[:, None] == self.queue.targets if self.own_class == "code" else None
        loss = instance_discrimination_loss(queries, keys, others, self.temperature, own).mean()
        self.queue.push(gather_over_processes(keys), gather_over_processes(batch.targets))
        return loss

    def extra_repr(self) -> str:
        """Describe the loss."""
        return f"own_class={self.own_class!r}, temperature={self.temperature}, momentum={self.momentum}"


@dataclass(frozen=True)
class Pretext:
    """A task without labels, ready for a stage.

    Attributes:
        objective: The objective; its ``loss`` is a term for others.
        head: Makes the task's layers from the number of features.
        views: Further views that the stage has to give.
    """

    objective: RotationPrediction | InstanceDiscrimination
    head: Callable[[int], nn.Module]
    views: tuple[Compose, ...] = ()


def usual_task(context: Context) -> Task:
    """Return the task that the papers take: rotation on CIFAR, instance discrimination on large images."""
    return "instance" if context.on_photographs else "rotation"


def pretext(task: Task, context: Context, *, own_class: Form = "formula") -> Pretext:
    """Return a task for a data set; the queue holds the largest multiple of the batch within an epoch, up to 65,536.

    Args:
        task: ``rotation`` or ``instance``.
        context: Class counts, budget and augmentation.
        own_class: Of `InstanceDiscrimination`.
    """
    if task == "rotation":
        return Pretext(RotationPrediction(), lambda features: LinearHead(features, 4))
    images, batch = sum(context.class_counts), context.budget.batch_size
    size = max(min(_LARGEST_QUEUE, images) // batch, 1) * batch
    return Pretext(InstanceDiscrimination(size, own_class=own_class), projection, (strong_view(context.augment),))


def strong_view(augment: Compose) -> Compose:
    """Return transforms that also change colours, before the normalisation at their end, as MoCo v2 does without blur.

    With probability 0.8 brightness, contrast and saturation by up to 0.4 and the hue by up to 0.1, then grey with
    probability 0.2. Windows of photographs have at least 0.2 of the area, and this jitter is in place of training's.
    """
    *before, normalize = augment.transforms
    placed = tuple(
        replace(step, scale=_SCALE) if isinstance(step, RandomResizedCrop) else step
        for step in before
        if not isinstance(step, ColorJitter)
    )
    return Compose((*placed, Sometimes(_JITTER, 0.8), Sometimes(Grey(), 0.2), normalize))


def beside(pretext_of: Callable[[int], nn.Module], *, aside: bool) -> Callable[[nn.Module], nn.Module]:
    """Return a stage's ``new_head`` that puts a task's layers beside the classifier.

    Raises:
        UsageError: (from the function) The classifier is of a kind that does not say how wide its features are.
    """

    def put(classifier: nn.Module) -> nn.Module:
        return PretextHead(classifier, pretext_of(features_of(classifier)), aside=aside)

    return put


def features_of(head: nn.Module) -> int:
    """Return the width of the features that a head takes; that of one expert or branch where there are several.

    Raises:
        UsageError: The head does not say.
    """
    for part in head.modules():
        width = getattr(part, "num_features", getattr(part, "in_features", None))
        if isinstance(width, int):
            return width
    raise UsageError(f"{type(head).__name__} does not say how wide its features are, which a task without labels needs")


def release(head: nn.Module) -> nn.Module:
    """Take the classifier out of a `PretextHead`: the ``new_head`` of the stage after."""
    assert isinstance(head, PretextHead)
    return head.released()
