"""The command that makes a run again: what was asked for, as far as it differs from the defaults."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from longtail.config import RunConfig
from longtail.networks.weights import NO_WEIGHTS
from longtail.request import start_of, usual_budget
from longtail.training.budget import default_backbone


def command_of(config: RunConfig, runtime: Mapping[str, Any]) -> str:
    """Return the command that makes a run, whatever way it was started: all that differs from the defaults."""
    words = ["longtail", "train", config.source or config.dataset, "--method", config.method]
    if config.source is None:  # a person's own images are as long-tailed as they are
        words += ["--imbalance", f"{config.imbalance:g}"]
    words += ["--protocol", config.protocol, "--seed", str(config.seed)]
    changed: dict[str, Any] = {}
    if config.source is None and config.profile != "exp":
        changed["profile"] = config.profile
    if config.dev_per_class:
        changed["dev_per_class"] = config.dev_per_class
    changed |= setup_changes(config) | budget_changes(config) | config.options
    changed |= {name: runtime[name] for name in ("precision", "threads") if name in runtime}
    if "compile" in runtime:
        changed["compile"] = "on" if runtime["compile"] else "off"
    for name, value in changed.items():
        words += [f"--{name.replace('_', '-')}", *([] if name == "freeze_backbone" else [as_text(value)])]
    return shlex.join(words)


def setup_changes(config: RunConfig) -> dict[str, Any]:
    """Return subset, network, start and teacher of a run as far as they are not the defaults.

    Of runs on files backbone and image size are always among them, since the usual ones depend on the images.
    """
    usual: dict[str, Any] = {"subset_seed": 0, "teacher": None, "weights": NO_WEIGHTS, "freeze_backbone": False}
    usual |= {"crop_size": None, "image_size": None}
    usual["backbone"] = default_backbone(config.dataset, (3, 32, 32)) if config.source is None else None
    return {name: value for name, default in usual.items() if (value := getattr(config, name)) != default}


def budget_changes(config: RunConfig) -> dict[str, Any]:
    """Return the fields of a run's budget that are not those of its protocol and start, stretched to the run's epochs.

    On few photographs batch size and learning rate are among them, since the usual ones depend on how many there are.
    """
    start = start_of(config.weights, freeze_backbone=config.freeze_backbone)
    usual = usual_budget(config.dataset, config.method, config.protocol, start)
    epochs = config.budget["epochs"]
    expected = {**asdict(usual.scaled(epochs)), "epochs": usual.epochs}
    return {name: value for name, value in config.budget.items() if _plain(value) != _plain(expected[name])}


def as_text(value: Any) -> str:
    """Return a value as it is typed behind a flag."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def without_folders(command: str) -> str:
    """Shorten absolute paths to their last part: whose machine it was is nobody's business."""

    def short(word: str) -> str:
        flag, equals, value = word.rpartition("=")
        return flag + equals + (PurePath(value).name if PurePath(value).is_absolute() else value)

    return shlex.join(short(word) for word in shlex.split(command))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
