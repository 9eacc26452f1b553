"""From what a person asks to what a run does: a settled configuration, and the recipe and network it stands for."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from longtail import methods
from longtail.augment import Compose, Normalize
from longtail.config import RunConfig
from longtail.data import LongTailData
from longtail.errors import UsageError
from longtail.methods.options import assign, convert
from longtail.networks import Network, Teacher
from longtail.training.budget import Budget, Context, augmentation_for, budget_for, default_backbone
from longtail.training.recipe import Recipe, Shape


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
    """

    name: str
    class_counts: tuple[int, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, data: LongTailData) -> Task:
        """Return the task of a data set."""
        return cls(data.name, tuple(data.class_counts), data.class_names, data.image_shape, data.mean, data.std)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Task:
        """Return the task that was written to a run's configuration."""
        kept: dict[str, Any] = {f.name: values[f.name] for f in fields(cls)}
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return cls(**plain)

    def plain_transforms(self) -> Compose:
        """Return the test-time transforms."""
        return Compose((Normalize(self.mean, self.std),))


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
        augment=augmentation_for(task.name, task.mean, task.std),
        plain=task.plain_transforms(),
        dev_per_class=config.dev_per_class,
        teacher=teacher,
    )
    try:
        return methods.build(config.method, context, config.options)
    except ValueError as error:  # a loss or sampler refused an option
        raise UsageError(f"{config.method}: {error}") from error


def build_run_network(config: RunConfig, task: Task, recipe: Recipe) -> Network:
    """Build the network of a request with the initial weights that its seed gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return recipe.network(*network_shape(config, task))


def network_shape(config: RunConfig, task: Task) -> Shape:
    """Return what the networks of a request are built for."""
    return Shape(config.backbone, len(task.class_counts), task.image_shape[0])


def make_config(
    data: LongTailData,
    method: str,
    *,
    subset_seed: int,
    protocol: str,
    seed: int,
    backbone: str | None,
    precision: str,
    eval_every: int | None,
    options: Mapping[str, Any],
    teacher: str | Path | None = None,
) -> RunConfig:
    """Settle a request: names checked, the protocol's budget with the given changes, the method's options by type.

    Raises:
        UsageError: A name or value is wrong.
    """
    name = methods.canonical(method)
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be at least 0")
    budget, rest = _budget(data.name, name, protocol, options)
    parts = methods.parse(name)
    arguments = assign([methods.part_options(part) for part in parts], rest, also=[f.name for f in fields(Budget)])
    given = {
        f"{part}.{key}": value for part, chosen in zip(parts, arguments, strict=True) for key, value in chosen.items()
    }
    if teacher is not None and not methods.takes_teacher(name):
        known = ", ".join(part for part in methods.names() if methods.takes_teacher(part))
        raise UsageError(f"{name} learns from no teacher", fix=f"leave --teacher out; methods that take one: {known}")
    every = max(1, budget.epochs // 20) if eval_every is None else eval_every
    if every < 1:
        raise UsageError(f"eval_every is {every}; it must be at least 1 epoch")
    return RunConfig(
        dataset=data.name,
        method=name,
        imbalance=data.imbalance,
        profile=data.profile,
        subset_seed=subset_seed,
        dev_per_class=0 if data.dev is None else len(data.dev) // data.num_classes,
        protocol=protocol,
        seed=seed,
        backbone=backbone or default_backbone(data.name),
        budget=asdict(budget),
        options=given,
        precision=precision,
        eval_every=every,
        teacher=None if teacher is None else str(teacher),
    )


def usual_budget(dataset: str, method: str, protocol: str) -> Budget:
    """Return the budget of a method under a protocol, before any change."""
    budget = budget_for(dataset, protocol)
    return replace(budget, **methods.published_budget(method)) if protocol == "published" else budget


def _budget(dataset: str, method: str, protocol: str, options: Mapping[str, Any]) -> tuple[Budget, dict[str, Any]]:
    """Return the protocol's budget with the changes among the options, and the options that are not the budget's."""
    hints = typing.get_type_hints(Budget)
    changes = {k.replace("-", "_"): v for k, v in options.items() if k.replace("-", "_") in hints}
    changes = {k: convert(k, v, hints[k]) for k, v in changes.items() if v is not None}
    rest = {k: v for k, v in options.items() if k.replace("-", "_") not in hints}
    budget = usual_budget(dataset, method, protocol)
    if "epochs" in changes:
        budget = budget.scaled(changes["epochs"])
    return replace(budget, **changes), rest


def default_folder(config: RunConfig) -> Path:
    """Return ``runs/DATASET-ifIF-METHOD-PROTOCOL-sSEED``."""
    return Path("runs") / f"{config.dataset}-if{config.imbalance:g}-{config.method}-{config.protocol}-s{config.seed}"
