"""What a run takes from finished ones: a teacher, or the training of its first stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from longtail import methods
from longtail.config import RunConfig, read_config
from longtail.errors import UsageError
from longtail.networks import Teacher
from longtail.request import Task
from longtail.training.progress import Position
from longtail.training.recipe import Recipe
from longtail.training.state import load_state


def teacher_of(config: RunConfig, task: Task) -> Teacher | None:
    """Load the run that a request names as its teacher; None where it names none.

    Raises:
        UsageError: It was trained on other classes or images.
        LongtailError: There is no finished run.
    """
    from longtail.run import load

    if config.teacher is None:
        return None
    run = load(config.teacher)
    if run.task.class_names != task.class_names or run.task.image_shape != task.image_shape:
        raise UsageError(
            f"{config.teacher} was trained on {run.task.name}: other classes or another image size than {task.name}",
            fix="give a teacher of the same data set",
        )
    return run.teacher()


def first_stage_state(config: RunConfig, recipe: Recipe, base: Path) -> dict[str, Any]:
    """Return the saved state of a finished run that can stand in for the first stage of another, or the first few.

    Args:
        config: The other run's request.
        recipe: Its recipe, which names the method that it shares the first stages with.
        base: Folder of the finished run.

    Raises:
        UsageError: The method has no such stage, or the run was trained otherwise, or is not finished.
        LongtailError: The folder holds no readable run.
    """
    there, _ = read_config(base)
    if recipe.first_stage_of is None:
        raise UsageError(f"{config.method} has no first stage that a finished run could stand in for")
    shared = methods.parse(recipe.first_stage_of)
    options = {key: value for key, value in config.options.items() if key.partition(".")[0] in shared}
    wanted = replace(config, method=recipe.first_stage_of, options=options)
    differences = wanted.differences(replace(there, eval_every=wanted.eval_every))
    if differences:
        raise UsageError(f"{base} is not the first stage of this run: {'; '.join(differences)}")
    state = load_state(base / "state.pt")
    if Position(**state["position"]).stage != recipe.first_stages:
        raise UsageError(f"{base} is not finished", fix=f"longtail train --resume --out {base}")
    return state
