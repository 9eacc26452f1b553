"""From a finished run to one committed result: a JSON file with its numbers and all that made them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from torch import nn

from longtail.benchmark.grid import folder_name
from longtail.command import as_text, budget_changes, command_of, setup_changes, without_folders
from longtail.config import RunConfig, read_config
from longtail.errors import LongtailError, UsageError
from longtail.evaluation import answering_expert
from longtail.request import Task, build_recipe
from longtail.run import Run
from longtail.training.sharing import shared_stages


def collect(run_folder: str | Path, results_dir: str | Path) -> Path:
    """Copy the result of a finished run into the committed results.

    Args:
        run_folder: A finished run.
        results_dir: Where the file is written; an older result of the same configuration is replaced.

    Returns:
        The file.

    Raises:
        LongtailError: The folder holds no finished run.
        UsageError: The file is there and holds another run.
    """
    folder = Path(run_folder)
    config, more = read_config(folder)
    run = Run(folder)
    metrics = dict(run.metrics)
    for other in ("stage1", "teacher"):
        if metrics.get(other):
            metrics[other] = PurePath(metrics[other]).name
    teacher_command, setup = "", names_of_setup(config, more)
    if config.teacher is not None:
        teacher_command = _teacher_command(Path(config.teacher))
        config = replace(config, teacher=PurePath(config.teacher).name)
    made_by, *resumed_by = (
        {**maker, "command": without_folders(maker.get("command", ""))}
        for maker in (more.get("made_by", {}), *more.get("resumed_by", []))
    )
    runtime = more.get("runtime") or {}
    budget = budget_changes(config)
    content = {
        "command": command_of(config, runtime),
        "teacher_command": teacher_command,
        "metrics": metrics,
        "config": asdict(config),
        "changed_setup": setup,
        "changed_budget": budget,
        "runtime": runtime,
        "made_by": made_by,
        "resumed_by": resumed_by,
        "experts": _experts(run),
    }
    told = {name: value for name, value in setup.items() if name != "freeze_backbone"}  # a folder's name has that
    apart = "".join(f"-{name}={as_text(value)}".replace("/", "") for name, value in {**told, **budget}.items())
    target = Path(results_dir) / f"{folder_name(config)}{apart}.json"
    _check_place(target, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return target


def _check_place(target: Path, config: RunConfig) -> None:
    """Refuse to replace the result of a run with another configuration."""
    if not target.exists():
        return
    try:
        there = RunConfig.from_plain(json.loads(target.read_text(encoding="utf-8"))["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise LongtailError(f"{target} is there and is not a result of a run", fix="move it away") from error
    if differences := config.differences(there):
        raise UsageError(
            f"{target} holds the result of a run with another configuration: {'; '.join(differences)}",
            fix="move it away, or collect into another folder",
        )


def names_of_setup(config: RunConfig, more: Mapping[str, Any]) -> dict[str, str]:
    """Return the choices beside method, options and budget that set a result apart, as they stand in its name.

    Args:
        config: A run's configuration.
        more: What else stands beside it in ``config.yaml``.
    """
    changed = setup_changes(config)
    if config.teacher is not None and _is_own_first_stage(Path(config.teacher), config, more):
        del changed["teacher"]
    if config.precision == "fp32":  # auto, and bf16, which it takes where that is faster, have no name
        changed["precision"] = config.precision
    places = ("teacher", "weights")
    return {name: PurePath(value).name if name in places else str(value) for name, value in changed.items()}


def _is_own_first_stage(teacher: Path, config: RunConfig, more: Mapping[str, Any]) -> bool:
    """Return whether a teacher is all that the method trains before its student where none is given.

    Then the run is the same. The student is the stage that begins with a new network.
    """
    try:
        theirs, _ = read_config(teacher)
    except LongtailError:
        return False
    own, task = replace(config, teacher=None), Task.from_plain(more["data"])
    if own.ground() != theirs.ground():
        return False
    recipe, other = build_recipe(own, task), build_recipe(theirs, task)
    before = next((k for k, stage in enumerate(recipe.stages) if stage.new_network is not None), 0)
    return (
        len(other.stages) == before
        and type(other.inference) is nn.Identity
        and shared_stages(recipe, other, config.backbone) == before
    )


def _teacher_command(folder: Path) -> str:
    """Return the command that makes a teacher's run; empty where the run is not there any more."""
    try:
        config, more = read_config(folder)
    except LongtailError:
        return ""
    return f"{command_of(config, more.get('runtime') or {})} --out {shlex.quote(folder.name)}"


def _experts(run: Run) -> list[float]:
    """Return the accuracy of each of the run's experts.

    Empty without experts, where routers left some unasked, and where the answer is that of a single one.
    """
    arrays = run.test_logits(experts=True)
    each = arrays.get("expert_logits")
    if each is None or np.isnan(each).any() or answering_expert(each, arrays["logits"]) is not None:
        return []
    right = each.argmax(2) == arrays["targets"]
    return [100.0 * float(share) for share in right.mean(1)]


def device_name(runtime: Mapping[str, Any], made_by: Mapping[str, Any]) -> str:
    """Return the name of what a run trained on, its processor or its GPU."""
    on_gpu = str(runtime.get("device", "cpu")).startswith("cuda")
    return str(made_by.get("gpu" if on_gpu else "processor") or "?")


def short_commit(commit: str | None) -> str:
    """Shorten a commit, and keep the sign of uncommitted changes."""
    name, plus, changes = (commit or "unknown").partition("+")
    return name[:12] + plus + changes
