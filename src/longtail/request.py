"""From what a person asks to what a run does: a settled configuration, and the recipe and network it stands for."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from longtail import methods
from longtail.augment import Compose, Normalize
from longtail.config import RunConfig
from longtail.data import LongTailData
from longtail.errors import UsageError
from longtail.methods.options import assign, convert
from longtail.networks import Network, Teacher, normalisation
from longtail.networks.weights import IMAGENET, NO_WEIGHTS
from longtail.training import photos
from longtail.training.budget import Budget, Context, augmentation_for, budget_for, default_backbone, family
from longtail.training.frozen import frozen
from longtail.training.recipe import Recipe, Shape

_MADE_UP_CLASSES = (1000, 20_000)  # at least and at most
_MADE_UP_LARGEST = 500
_PLENTY = 1_000_000  # images, for which no batch size is made smaller


@dataclass(frozen=True)
class Task:
    """What the trained model must know of its data; part of the run folder.

    Attributes:
        name: Name of the data set.
        class_counts: Training images per class.
        class_names: Names of the classes.
        image_shape: (C, H, W).
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel.
        crop_size: Side of the part in the middle that the network sees of an image; None: all of it.
    """

    name: str
    class_counts: tuple[int, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_size: int | None = None

    @classmethod
    def of(cls, data: LongTailData, config: RunConfig | None = None) -> Task:
        """Return the task of a data set, with the crop and the normalisation that a request asks for."""
        plain = cls(data.name, tuple(data.class_counts), data.class_names, data.image_shape, data.mean, data.std)
        if config is None:
            return plain
        mean, std = data.mean, data.std
        if (used := normalisation(config.backbone, config.weights)) and len(used[0]) == len(mean):
            mean, std = used
        return replace(plain, mean=mean, std=std, crop_size=config.crop_size)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Task:
        """Return the task that was written to a run's configuration."""
        kept: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values or f.default is MISSING}
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return cls(**plain)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of what the network sees."""
        channels, *sides = self.image_shape
        return (channels, *(sides if self.crop_size is None else (self.crop_size, self.crop_size)))

    def plain_transforms(self) -> Compose:
        """Return the test-time transforms."""
        return photos.test_transforms(self.crop_size, Normalize(self.mean, self.std))


def build_recipe(config: RunConfig, task: Task, teacher: Teacher | None = None) -> Recipe:
    """Build the recipe of a request.

    Args:
        config: The request.
        task: The data set's side of it.
        teacher: The trained model that the request names; None also where only the trained network is wanted, which
            does not depend on it.

    Raises:
        UsageError: Names or values do not fit together.
    """
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.budget.items()}
    budget = Budget(**values)
    context = Context(
        class_counts=task.class_counts,
        protocol=config.protocol,
        budget=budget,
        augment=augmentation_for(task.name, task.mean, task.std, min(task.input_shape[1:])),
        plain=task.plain_transforms(),
        dev_per_class=config.dev_per_class,
        teacher=teacher,
        dataset=task.name,
    )
    recipe = methods.build(config.method, context, config.options)
    return frozen(recipe, config.method, context) if config.freeze_backbone else recipe


def build_run_network(config: RunConfig, task: Task, recipe: Recipe) -> Network:
    """Build the network of a request with the initial weights that its seed gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return recipe.network(*network_shape(config, task))


def network_shape(config: RunConfig, task: Task) -> Shape:
    """Return what the networks of a request are built for."""
    return Shape(config.backbone, len(task.class_counts), task.image_shape[0])


def _usual_gap(epochs: int, data: LongTailData, *, frozen: bool) -> int:
    """Return the epochs between looks at the test set: 20 looks a run, fewer where they take long beside training.

    A test image costs about a third of a training image, and all looks shall take a twentieth of the time at most. With
    stored features a single look takes longer than all the training before it.
    """
    if frozen:
        return epochs
    enough = math.ceil(len(data.test) / (3 * len(data.train)) / 0.05)
    return min(max(1, epochs // 20, enough), epochs)


def make_config(
    data: LongTailData,
    method: str,
    *,
    protocol: str,
    seed: int,
    backbone: str | None,
    precision: str,
    eval_every: int | None,
    options: Mapping[str, Any],
    teacher: str | Path | None = None,
    weights: str | Path = NO_WEIGHTS,
    freeze_backbone: bool = False,
    crop_size: int | None = None,
) -> RunConfig:
    """Settle a request: names checked, the protocol's budget with the given changes, the method's options by type.

    Raises:
        UsageError: A name or value is wrong.
    """
    name, start = _checked(method, protocol, seed, eval_every, teacher, weights, freeze_backbone=freeze_backbone)
    budget, given = _settled(data.name, len(data.train), name, protocol, start, options)
    every = _usual_gap(budget.epochs, data, frozen=freeze_backbone) if eval_every is None else eval_every
    return RunConfig(
        dataset=data.name,
        method=name,
        imbalance=data.imbalance,
        profile=data.profile,
        subset_seed=data.subset_seed,
        dev_per_class=0 if data.dev is None else len(data.dev) // data.num_classes,
        protocol=protocol,
        seed=seed,
        backbone=backbone or default_backbone(data.name, data.image_shape),
        budget=asdict(budget),
        options=given,
        precision=precision,
        eval_every=every,
        teacher=None if teacher is None else str(Path(teacher).absolute()),
        source=None if data.origin is None else data.origin.path,
        fingerprint=None if data.origin is None else data.origin.fingerprint,
        image_size=None if data.origin is None else data.origin.image_size,
        weights=str(weights if weights in (NO_WEIGHTS, IMAGENET) else Path(weights).absolute()),
        freeze_backbone=freeze_backbone,
        crop_size=_crop(data, crop_size),
    )


def rehearse(
    dataset: str,
    method: str,
    *,
    protocol: str = "common",
    seed: int = 0,
    eval_every: int | None = None,
    options: Mapping[str, Any] | None = None,
    teacher: str | Path | None = None,
    weights: str | Path = NO_WEIGHTS,
    freeze_backbone: bool = False,
    dev_per_class: int = 0,
) -> None:
    """Find what is wrong with a request whatever its data are, before these are read.

    The recipe is built on a made-up task with more classes than an option may count, so that nothing is refused that
    real data allow; what depends on the data is found by `make_config` and `build_recipe`.

    Args:
        dataset: Name of the data set, on which budgets and augmentation depend.
        method: ``METHOD+MODIFIER+...``.
        protocol: As for `make_config`; likewise the next seven.
        seed: Training seed.
        eval_every: Epochs between looks at the test set.
        options: Fields of the budget and options of the method.
        teacher: A run to learn from; it is not read.
        weights: What the backbone starts from; not read.
        freeze_backbone: Whether it stays so.
        dev_per_class: Images per class that shall be held out.

    Raises:
        UsageError: A name or value is wrong, or the parts of the method do not fit together.
    """
    name, start = _checked(method, protocol, seed, eval_every, teacher, weights, freeze_backbone=freeze_backbone)
    budget, given = _settled(dataset, _PLENTY, name, protocol, start, options or {})
    least, most = _MADE_UP_CLASSES
    classes = min(max(least, sum(value for value in given.values() if isinstance(value, int))), most)
    mean, std = (0.5,) * 3, (0.25,) * 3
    context = Context(
        class_counts=tuple(round(_MADE_UP_LARGEST ** (1 - k / (classes - 1))) for k in range(classes)),
        protocol=protocol,
        budget=budget,
        augment=augmentation_for(dataset, mean, std),
        plain=photos.test_transforms(None, Normalize(mean, std)),
        dev_per_class=dev_per_class,
        dataset=dataset,
    )
    recipe = methods.build(name, context, given)
    if freeze_backbone:
        frozen(recipe, name, context)


def _checked(
    method: str,
    protocol: str,
    seed: int,
    eval_every: int | None,
    teacher: str | Path | None,
    weights: str | Path,
    *,
    freeze_backbone: bool,
) -> tuple[str, photos.Start]:
    """Check what is plainly right or wrong; return the method's canonical name, and what the run begins with.

    Raises:
        UsageError: A name or value is wrong.
    """
    name = methods.canonical(method)
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be at least 0")
    if eval_every is not None and eval_every < 1:
        raise UsageError(f"eval_every is {eval_every}; it must be at least 1 epoch")
    if freeze_backbone and protocol == "published":
        raise UsageError("nobody published numbers with a frozen backbone", fix="use --protocol common or quick")
    if teacher is not None and not methods.takes_teacher(name):
        known = ", ".join(part for part in methods.names() if methods.takes_teacher(part))
        raise UsageError(f"{name} learns from no teacher", fix=f"leave --teacher out; methods that take one: {known}")
    return name, start_of(weights, freeze_backbone=freeze_backbone)


def _settled(
    dataset: str, images: int, name: str, protocol: str, start: photos.Start, options: Mapping[str, Any]
) -> tuple[Budget, dict[str, Any]]:
    """Return the budget, and the method's options that were given by ``part.name``, each of its type."""
    budget, rest = _budget(dataset, images, name, protocol, start, options)
    parts = methods.parse(name)
    arguments = assign([methods.part_options(part) for part in parts], rest, also=[f.name for f in fields(Budget)])
    given = {
        f"{part}.{key}": value for part, chosen in zip(parts, arguments, strict=True) for key, value in chosen.items()
    }
    return budget, given


def _crop(data: LongTailData, asked: int | None) -> int | None:
    """Return the side that the network sees of each image; None for all of it.

    Raises:
        UsageError: It is out of range, or the data are no photographs.
    """
    side = min(data.image_shape[1:])
    if asked is not None and family(data.name) != "photos":
        raise UsageError(f"crop_size is for photographs; {data.name} is trained on whole images")
    if asked is not None and not 8 <= asked <= side:
        raise UsageError(
            f"crop_size is {asked}; it must be within 8..{side}, the side of the images", fix="see also --image-size"
        )
    crop = asked or (photos.usual_crop(side) if family(data.name) == "photos" else side)
    return None if crop == side else crop


def start_of(weights: str | Path, *, freeze_backbone: bool) -> photos.Start:
    """Return what a run begins with, as far as its usual budget depends on it."""
    if freeze_backbone:
        return "frozen"
    return "scratch" if weights == NO_WEIGHTS else "pretrained"


def usual_budget(dataset: str, method: str, protocol: str, start: photos.Start = "scratch") -> Budget:
    """Return the budget of a method under a protocol, before any change."""
    budget = budget_for(dataset, protocol, start)
    return replace(budget, **methods.published_budget(method, dataset)) if protocol == "published" else budget


def _budget(
    dataset: str, images: int, method: str, protocol: str, start: photos.Start, options: Mapping[str, Any]
) -> tuple[Budget, dict[str, Any]]:
    """Return the protocol's budget with the changes among the options, and the options that are not the budget's."""
    hints = typing.get_type_hints(Budget)
    changes = {k.replace("-", "_"): v for k, v in options.items() if k.replace("-", "_") in hints}
    changes = {k: convert(k, v, hints[k]) for k, v in changes.items() if v is not None}
    rest = {k: v for k, v in options.items() if k.replace("-", "_") not in hints}
    budget = usual_budget(dataset, method, protocol, start)
    if family(dataset) == "photos" and "batch_size" not in changes:
        batch = photos.batch_for(budget.batch_size, images)
        budget = replace(budget, batch_size=batch, lr=budget.lr * batch / budget.batch_size)
    if "epochs" in changes:
        budget = budget.scaled(changes["epochs"])
    return replace(budget, **changes), rest


def default_folder(config: RunConfig) -> Path:
    """Return ``runs/DATASET-ifIF-METHOD-PROTOCOL-sSEED``, with ``-frozen`` behind the method where it is."""
    method = f"{config.method}-frozen" if config.freeze_backbone else config.method
    return Path("runs") / f"{config.dataset}-if{config.imbalance:g}-{method}-{config.protocol}-s{config.seed}"
