"""What a method is: a network head, ordered stages and an inference rule.

A published method is a function that returns a `Recipe`; a modifier is a function from recipe to recipe. Nothing here
trains: the loop reads these records.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from longtail.augment import Compose, Mixing
from longtail.networks import Network, build_network
from longtail.sampling import InstanceSampling, Sampling
from longtail.types import Batch, Progress


class Objective(Protocol):
    """What a stage minimises: an `nn.Module` called with (network, batches, progress), returning a scalar.

    ``batches`` holds one `Batch` per index stream of the stage, then one per further view, then one per index stream of
    the development set. Whatever an objective must remember (a teacher, a
    queue, thresholds) is a submodule or a buffer of it, so that it is saved, restored and moved with the rest. One that
    cannot take mixed images says ``takes_mixed = False``.
    """

    def __call__(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar to minimise."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """An objective that needs networks before its first step: a teacher, a momentum encoder."""

    def prepare(self, before: Network, network: Network) -> None:
        """Make the submodules that are copies of networks, frozen; called when the stage begins.

        A resumed run calls it with networks of the right structure and loads the saved objective over what it made.

        Args:
            before: The network as the stage before left it; ``network`` itself where the stage builds no new one.
            network: The network that is about to train, with the head of this stage.
        """
        ...


class Look(Protocol):
    """Gives what a module says of all training images without augmentation, (N, C) or (E, N, C)."""

    def __call__(self, module: nn.Module | None = None) -> Tensor:
        """Ask a module, such as a teacher; None: the network that is about to train."""
        ...


@runtime_checkable
class Measured(Protocol):
    """An objective that looks at the training set before its first step, such as to choose a temperature."""

    def measure(self, look: Look, targets: Tensor) -> None:
        """Keep in buffers what was found; called once, after `Prepared.prepare`, and not again when a run resumes.

        Args:
            look: Asks a module, or the network, about all training images.
            targets: Classes of the training images, (N,).
        """
        ...


@runtime_checkable
class Choosing(Protocol):
    """An objective that chooses some of its settings itself, in `Measured.measure`, and says which it chose."""

    def chosen(self) -> dict[str, float]:
        """Return what was chosen, by name; empty where all was given. Every line of the stage's history has it."""
        ...


class Shape(NamedTuple):
    """What a network is built for: name of the backbone, number of classes, channels of the images."""

    backbone: str
    num_classes: int
    channels: int


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as the long-tail papers use it; weight decay acts on every parameter.

    Attributes:
        lr: Peak learning rate.
        momentum: Momentum.
        weight_decay: L2 penalty.
        nesterov: Nesterov momentum.
        lr_scales: Pairs (start of a parameter's name in the network, factor): those parameters learn at ``lr * factor``
            throughout; the first start that fits counts. Such as ``(("head.linear.", 0.1),)``.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    nesterov: bool = False
    lr_scales: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"learning rate is {self.lr}; it must be a finite number above 0")
        for start, factor in self.lr_scales:
            if not 0 <= factor < math.inf:
                raise ValueError(
                    f"factor of the learning rate of {start!r} is {factor}; it must be finite and at least 0"
                )

    def parameter_groups(self, network: nn.Module, objective: nn.Module) -> list[dict[str, Any]]:
        """Return what trains in both as groups of one learning rate, each with its ``lr_scale``.

        Raises:
            ValueError: A start of ``lr_scales`` fits no parameter that trains.
        """
        groups: dict[float, list[nn.Parameter]] = {}
        unused = {start for start, _ in self.lr_scales}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                start, scale = next(((s, k) for s, k in self.lr_scales if name.startswith(s)), ("", 1.0))
                unused.discard(start)
                groups.setdefault(scale, []).append(parameter)
        if unused:
            raise ValueError(f"lr_scales: no parameter that trains has a name that starts with {', '.join(unused)}")
        groups.setdefault(1.0, []).extend(p for p in objective.parameters() if p.requires_grad)
        return [{"params": ps, "lr": self.lr * scale, "lr_scale": scale} for scale, ps in groups.items() if ps]


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor of each epoch: linear warm-up by epoch, then steps or a cosine.

    Attributes:
        epochs: Length of the span in epochs. Stages may share one span (deferred re-weighting continues the schedule
            of the epochs before it); see `Stage.first_epoch`.
        kind: ``"step"``: the factor is multiplied by ``decay[k]`` from epoch ``milestones[k]`` on; ``"cosine"``: half a
            cosine from 1 towards 0, never reaching it, so that the last epoch still learns.
        warmup: The first ``warmup`` epochs e = 1, 2, ... run at factor e / warmup (LDAM-DRW).
        milestones: 0-based epochs at which the factor drops.
        decay: Factor from each milestone on, relative to 1 (not cumulative).
    """

    epochs: int
    kind: Literal["step", "cosine"] = "step"
    warmup: int = 5
    milestones: tuple[int, ...] = (160, 180)
    decay: tuple[float, ...] = (1e-2, 1e-4)

    def factor(self, epoch: int) -> float:
        """Return the learning-rate factor of a 0-based epoch of the span."""
        if epoch < self.warmup:
            return (epoch + 1) / self.warmup
        if self.kind == "cosine":
            span = max(self.epochs - self.warmup, 1)
            return 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / span))
        factor = 1.0
        for milestone, decay in zip(self.milestones, self.decay, strict=True):
            if epoch >= milestone:
                factor = decay
        return factor


@dataclass(frozen=True)
class Stage:
    """A span of training with one sampling, one augmentation, one objective, one optimiser.

    Attributes:
        name: Shown in progress lines and the history.
        objective: What is minimised; None for a stage that only replaces or fits the head (``epochs`` 0).
        epochs: Epochs that this stage trains.
        augment: Transforms from uint8 images to network input.
        batch_size: Images per step and stream, over all processes.
        optimizer: SGD settings; unused when ``continues``.
        schedule: Learning-rate schedule; its span may be longer than the stage.
        first_epoch: Where the stage begins within the schedule's span.
        sampling: One entry per index stream.
        mixing: Mixing after augmentation, or None.
        continues: Keep the optimiser of the stage before, momentum included.
        trainable: ``"all"``, or ``"head"`` with the backbone frozen.
        batch_norm: ``"train"``: batch statistics, running statistics move (also under a frozen backbone, as the
            official decoupling code does); ``"eval"``: the backbone stays in evaluation mode.
        cached_features: Train the head on features computed once, without augmentation, those of experts included;
            needs a frozen backbone with ``batch_norm="eval"``.
        views: Transforms of further views of the first stream's images, each a batch of its own.
        dev: Index streams of the development set, each a batch of its own with positions in that set.
        dev_batch_size: Development images per step and stream; None: ``batch_size``. At most the set's size.
        new_network: Builds a network from a `Shape`'s fields, as `Recipe.network` does, to take the place of the one
            before; None goes on with that.
        new_head: Makes the head that this stage uses from the head before; None keeps it.
        fit: Closed-form fit of the head: called with (head, features (N, d), targets (N,)) of the whole training set.
    """

    name: str
    objective: nn.Module | None
    epochs: int
    augment: Compose
    batch_size: int
    optimizer: SGD = SGD()
    schedule: Schedule = field(default_factory=lambda: Schedule(200))
    first_epoch: int = 0
    sampling: tuple[Sampling, ...] = (InstanceSampling(),)
    mixing: Mixing | None = None
    continues: bool = False
    trainable: Literal["all", "head"] = "all"
    batch_norm: Literal["train", "eval"] = "train"
    cached_features: bool = False
    views: tuple[Compose, ...] = ()
    dev: tuple[Sampling, ...] = ()
    dev_batch_size: int | None = None
    new_network: Callable[[str, int, int], Network] | None = None
    new_head: Callable[[nn.Module], nn.Module] | None = None
    fit: Callable[[nn.Module, Tensor, Tensor], None] | None = None

    def __post_init__(self) -> None:
        if self.cached_features and not (self.trainable == "head" and self.batch_norm == "eval"):
            raise ValueError(f"stage {self.name!r}: cached features need trainable='head' and batch_norm='eval'")
        if self.cached_features and (self.views or self.dev):
            raise ValueError(f"stage {self.name!r}: features are cached of the first view of training images only")
        if self.continues and self.new_network is not None:
            raise ValueError(f"stage {self.name!r}: a new network cannot go on with the optimiser of the one before")
        if self.objective is not None and self.epochs < 1:
            raise ValueError(f"stage {self.name!r}: epochs is {self.epochs}; a stage that trains needs at least 1")


@dataclass(frozen=True)
class Recipe:
    """Network, ordered stages and inference rule of a method.

    Attributes:
        stages: In the order in which they run.
        network: Builds the network from (backbone name, number of classes, channels of the images).
        inference: Module applied to the network's logits at test time. It learns nothing and saves no tensors: a loaded
            run rebuilds it from the configuration.
        classifier: A stage that trains the classifier alone, for modifiers that need one at the end of a method that
            has none; not run by itself.
    """

    stages: tuple[Stage, ...]
    network: Callable[[str, int, int], Network] = build_network
    inference: nn.Module = field(default_factory=nn.Identity)
    classifier: Stage | None = None

    def with_stages(self, *stages: Stage) -> Recipe:
        """Return a copy with other stages."""
        return replace(self, stages=stages)


def enter_structure(network: Network, stage: Stage, shape: Shape) -> Network:
    """Return the network that a stage trains, with its head: the given one or a new one, fresh weights included."""
    if stage.new_network is not None:
        network = stage.new_network(*shape)
    if stage.new_head is not None:
        network.head = stage.new_head(network.head)
    return network
