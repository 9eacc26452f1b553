"""Protocols: the training budget around a recipe.

``published``: the settings of the method's own code, by default those of LDAM-DRW (Cao et al. 2019), which most
CIFAR-LT papers share. ``common``: one budget and one augmentation for all methods, so that only the method differs.
``quick``: a short schedule that keeps the ordering of methods, for checks.
Numbers of different protocols never stand in one column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from longtail.augment import Compose, Normalize, RandomCrop, RandomFlip
from longtail.errors import UsageError, unknown_name
from longtail.networks import Teacher
from longtail.training import photos
from longtail.training.photos import Start
from longtail.training.recipe import SGD, Schedule, Stage

PROTOCOLS = ("common", "published", "quick")


@dataclass(frozen=True)
class Budget:
    """Epochs, batch size, optimiser and schedule of a run; every field is an option of `longtail train`.

    Attributes:
        epochs: Epochs of (first-stage) training.
        batch_size: Images per step over all processes.
        lr: Peak learning rate.
        momentum: SGD momentum.
        nesterov: Nesterov momentum.
        weight_decay: L2 penalty on every parameter.
        warmup: Epochs of linear warm-up.
        schedule: ``step`` or ``cosine``.
        milestones: Epochs at which a step schedule drops.
        decay: Learning-rate factor from each milestone on.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    warmup: int = 5
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (160, 180)
    decay: tuple[float, ...] = (1e-2, 1e-4)

    def __post_init__(self) -> None:
        rules = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": self.lr > 0,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": self.weight_decay >= 0,
            "warmup": self.warmup >= 0,
            "schedule": self.schedule in ("step", "cosine"),
            "decay": len(self.decay) == len(self.milestones),
        }
        allowed = {
            "epochs": "at least 1",
            "batch_size": "at least 1",
            "lr": "above 0",
            "momentum": "in [0, 1)",
            "weight_decay": "at least 0",
            "warmup": "at least 0",
            "schedule": "'step' or 'cosine'",
            "decay": f"as many as milestones, {len(self.milestones)}",
        }
        for name, holds in rules.items():
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be {allowed[name]}")

    def scaled(self, epochs: int) -> Budget:
        """Return the same schedule stretched or shrunk to another number of epochs."""
        if epochs < 1:
            raise UsageError(f"epochs is {epochs}; it must be at least 1")
        ratio = epochs / self.epochs
        warmup = min(max(round(self.warmup * ratio), 1 if self.warmup else 0), max(epochs - 1, 0))
        milestones = tuple(max(round(m * ratio), 1) for m in self.milestones)
        return replace(self, epochs=epochs, warmup=warmup, milestones=milestones)

    def sgd(self) -> SGD:
        """Return the optimiser settings."""
        return SGD(self.lr, self.momentum, self.weight_decay, self.nesterov)

    def lr_schedule(self) -> Schedule:
        """Return the learning-rate schedule over the whole budget."""
        return Schedule(self.epochs, self.schedule, self.warmup, self.milestones, self.decay)


BUDGET_FIELDS = frozenset(Budget.__dataclass_fields__)
"""Names of the options of every run."""

_LDAM_DRW = Budget(epochs=200)
_BUDGETS: dict[str, dict[str, Budget]] = {
    "cifar": {
        "published": _LDAM_DRW,
        "common": Budget(epochs=200, schedule="cosine", weight_decay=5e-4, milestones=(), decay=()),
        # Half the batch and Nesterov momentum: in 24 epochs the number of useful steps is what is short.
        "quick": Budget(24, 64, nesterov=True, schedule="cosine", weight_decay=5e-4, milestones=(), decay=(), warmup=1),
    },
    "digits": {
        "common": Budget(100, 32, 0.1, weight_decay=5e-4, warmup=2, schedule="cosine", milestones=(), decay=()),
        "quick": Budget(30, 32, 0.1, weight_decay=5e-4, warmup=1, schedule="cosine", milestones=(), decay=()),
    },
}


def family(dataset: str) -> str:
    """Return the family of data sets that share budgets and augmentation: ``cifar``, ``digits`` or ``photos``."""
    return {"cifar10": "cifar", "cifar100": "cifar", "digits": "digits"}.get(dataset, "photos")


def budget_for(dataset: str, protocol: str, start: Start = "scratch") -> Budget:
    """Return the budget of a protocol on a data set.

    Args:
        dataset: Name of the data set.
        protocol: ``common``, ``published`` or ``quick``.
        start: What the run begins with; only photographs have other budgets for pretrained weights.

    Raises:
        UsageError: The protocol is unknown, or the data set has no published protocol.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if family(dataset) == "photos":
        return Budget(**photos.fields_for(dataset, protocol, start))
    budgets = _BUDGETS[family(dataset)]
    if protocol not in budgets:
        raise UsageError(
            f"no {protocol} protocol for {dataset}: nobody published numbers on it",
            fix=f"use --protocol {' or '.join(sorted(budgets))}",
        )
    return budgets[protocol]


def default_backbone(dataset: str, image_shape: tuple[int, ...]) -> str:
    """Return the backbone that the papers use on a data set; for photographs one for images (C, H, W) of their size."""
    usual = {"cifar": "resnet32", "digits": "small"}.get(family(dataset))
    return usual or photos.backbone_for(dataset, min(image_shape[1:]))


def augmentation_for(
    dataset: str, mean: tuple[float, ...], std: tuple[float, ...], side: int = photos.SMALL
) -> Compose:
    """Return the training transforms.

    Args:
        dataset: Name of the data set. CIFAR: crop with zero padding and flip; digits: a one-pixel crop; photographs:
            `longtail.training.photos.training_transforms`.
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel.
        side: Side of the images that the network sees; only photographs ask.
    """
    normalize = Normalize(mean, std)
    if family(dataset) == "cifar":
        return Compose((RandomCrop(padding=4), RandomFlip(), normalize))
    if family(dataset) == "digits":
        return Compose((RandomCrop(padding=1), normalize))
    return photos.training_transforms(dataset, side, normalize)


@dataclass(frozen=True)
class Context:
    """What a method may know of the task when it builds its recipe.

    Attributes:
        class_counts: Training images per class.
        protocol: ``common``, ``published`` or ``quick``.
        budget: The protocol's budget with the user's changes.
        augment: Training transforms of the data set.
        plain: Test-time transforms: normalisation, after a centre crop where the network sees less than is stored.
        dev_per_class: Images per class of the development set; 0: there is none.
        teacher: The trained model that the run was given to learn from; None: none, or only the network is wanted.
        dataset: Name of the data set, for what a method's own code does on one and not on others.
    """

    class_counts: tuple[int, ...]
    protocol: str
    budget: Budget
    augment: Compose
    plain: Compose
    dev_per_class: int = 0
    teacher: Teacher | None = None
    dataset: str = "cifar100"

    @property
    def on_cifar(self) -> bool:
        """Whether the data set is CIFAR."""
        return family(self.dataset) == "cifar"

    @property
    def on_photographs(self) -> bool:
        """Whether the images are photographs, and not the small ones of CIFAR or digits."""
        return family(self.dataset) == "photos"

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_counts)

    def stage(self, objective: nn.Module, name: str = "train") -> Stage:
        """Return the one training stage of this budget: all parameters, plain shuffling."""
        return Stage(
            name=name,
            objective=objective,
            epochs=self.budget.epochs,
            augment=self.augment,
            batch_size=self.budget.batch_size,
            optimizer=self.budget.sgd(),
            schedule=self.budget.lr_schedule(),
        )
