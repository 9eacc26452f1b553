"""What a run takes from finished ones: a teacher, or the training of its first stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtail.config import RunConfig, read_config, resume_command
from longtail.errors import UsageError
from longtail.folder import RunFolder, other_images
from longtail.networks import Teacher
from longtail.request import Task, build_recipe
from longtail.run import Run
from longtail.training.recipe import Recipe
from longtail.training.sharing import difference, shared_stages, stage_difference


def teacher_of(config: RunConfig, task: Task) -> Teacher | None:
    """Load the run that a request names as its teacher; None where it names none.

    Raises:
        UsageError: It was trained on other classes or images.
        LongtailError: There is no finished run.
    """
    if config.teacher is None:
        return None
    run = Run(config.teacher)
    if run.task.class_names != task.class_names or run.task.image_shape != task.image_shape:
        raise UsageError(
            f"{config.teacher} was trained on {run.task.name}: other classes or another image size than {task.name}",
            fix="give a teacher of the same data set",
        )
    return run.teacher(task)


def borrowed_state(config: RunConfig, task: Task, fingerprint: str, recipe: Recipe, base: Path) -> dict[str, Any]:
    """Return the state of another run at the end of the last stage that both have in common and that it kept.

    Which stages those are is told from the stages themselves, so that runs of any two methods lend to each other; the
    result is what training them all would give, bit by bit on the same machine. The history has the borrower's names,
    and of the lender's looks at the test set only those that the borrower would have had.

    Args:
        config: The borrower's request.
        task: Its task.
        fingerprint: Of its data.
        recipe: Its recipe.
        base: Folder of the other run.

    Raises:
        UsageError: The two have no stage in common, or the other one has not come so far.
        LongtailError: The folder holds no readable run.
    """
    there, more = read_config(base)
    mine, theirs = config.ground(), there.ground()
    told = [f"{key} {mine[key]!r} here, {theirs[key]!r} there" for key in mine if mine[key] != theirs[key]]
    told += other_images(fingerprint, more)
    their_task = Task.from_plain(more["data"])
    if told or their_task != task:
        raise UsageError(f"{base} was trained otherwise: {'; '.join(told) or 'on other images'}")
    other = build_recipe(there, their_task, teacher_of(there, their_task))
    count = shared_stages(recipe, other, config.backbone)
    if not count:
        where = stage_difference(recipe.stages[0], other.stages[0]) or "network"
        raise UsageError(
            f"{base} ({there.method}) has no first stage of {config.method}: they differ in {where}",
            fix="--stage1 takes a run with the same first stages; leave it out to train them",
        )
    folder = RunFolder(base)
    for stages in range(count, 0, -1):
        state = folder.lent_state(stages)
        if state is not None:
            both = zip(recipe.stages[:stages], other.stages[:stages], strict=True)
            names = {lender.name: borrower.name for borrower, lender in both}
            history = [{**line, "stage": names[line["stage"]]} for line in state["history"]]
            answers_alike = not difference(recipe.inference, other.inference)
            return {**state, **_own_looks(history, config.eval_every if answers_alike else None)}
    raise UsageError(
        f"{base} kept no state of the end of its stage {other.stages[0].name!r}",
        fix=resume_command(base) if not folder.finished else "train it again in a new folder",
    )


def _own_looks(history: list[dict[str, Any]], every: int | None) -> dict[str, Any]:
    """Return a history with the looks at the test set of every so many epochs, None for none, and the best of them."""
    for epoch, line in enumerate(history, 1):
        if every is None or epoch % every:
            line.pop("test_top1", None)
    best = max((line["test_top1"] for line in history if "test_top1" in line), default=None)
    return {"history": history, "best": best}
