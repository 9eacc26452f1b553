"""What can be known of a request before its data are read: cheap mistakes are told before an hour of decoding."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.cli.output import note
from longtail.config import CONFIG_NAME, read_config, resume_command
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.cli.setup import Setup


def check_request(
    arguments: Setup,
    data: str,
    runs: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    seed: int = 0,
    teacher: str | None = None,
    stage1: str | None = None,
) -> None:
    """Refuse methods, values and files that are wrong whatever the data are.

    Args:
        arguments: The flags.
        data: How the data set was named.
        runs: Method and options of each run; options of the budget are among them.
        seed: Training seed.
        teacher: A run to learn from.
        stage1: A run to take first stages from.

    Raises:
        UsageError: A name or value is wrong, or the parts of a method do not fit together.
        LongtailError: The weights or one of those runs are not there.
    """
    from longtail.networks.network import check_backbone
    from longtail.request import rehearse

    if arguments.backbone is not None:
        check_backbone(arguments.backbone)
    shared = ("protocol", "eval_every", "weights", "freeze_backbone", "dev_per_class")
    same: dict[str, Any] = {name: getattr(arguments, name) for name in shared}
    for method, options in runs:
        rehearse(_dataset(data), method, seed=seed, teacher=teacher, options=options, **same)
    check_weights(arguments.weights)
    if teacher is not None:
        check_teacher(Path(teacher))
    if stage1 is not None:
        read_config(Path(stage1))


def _dataset(name: str) -> str:
    """Return the name that the data set will have, as far as budgets depend on it."""
    from longtail.cli.setup import DATA_SETS
    from longtail.data.listing import short_name

    return name if name in DATA_SETS else short_name(Path(os.path.abspath(Path(name).expanduser())), DATA_SETS)


def check_weights(weights: str) -> None:
    """Refuse weights of which there is no file; what is in one is seen when it is read.

    Raises:
        LongtailError: It is not there.
    """
    from longtail.networks.weights import IMAGENET, NO_WEIGHTS, file_of_weights

    if weights not in (NO_WEIGHTS, IMAGENET):
        file_of_weights(Path(weights))


def check_teacher(folder: Path) -> None:
    """Refuse a teacher that is no finished run.

    Raises:
        LongtailError: It is none.
    """
    from longtail.folder import MODEL_NAME, missing_result

    read_config(folder)
    if not (folder / MODEL_NAME).exists():
        raise missing_result(folder, MODEL_NAME)


def check_machine(device: str, threads: str, *, jobs: int = 1, quiet: bool = False) -> None:
    """Refuse a device that is not here and threads that are no number; warn of more threads than processors.

    Args:
        device: As for `longtail.training.runtime.pick_device`.
        threads: ``auto`` or a number.
        jobs: Runs side by side, with so many threads each.
        quiet: Do not warn.

    Raises:
        UsageError: The device is not here, or the threads are wrong.
    """
    from longtail.training.runtime import check_asked, pick_device

    check_asked("auto", threads, "auto")
    pick_device(device)
    if threads == "auto" or quiet:
        return
    asked, there = int(threads) * jobs, processors()
    if asked > there:
        told = f"{asked} thread{'s' if asked > 1 else ''}" + (f" ({jobs} runs of {threads})" if jobs > 1 else "")
        note(f"{told} on {there} processor{'s' if there > 1 else ''} wait for each other and may crawl; try fewer")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_free(folder: str | None, *, resume: bool) -> None:
    """Refuse the folder of another run for a new one, and one without a run to go on with.

    Args:
        folder: What was asked for; None: the usual one, which only the data tell.
        resume: Whether a run there shall go on.

    Raises:
        UsageError: The folder does not fit.
    """
    if folder is None:
        return
    place = Path(folder)
    begun = (place / CONFIG_NAME).exists()
    if resume and not begun:
        raise UsageError(f"{place} holds no run to resume", fix="leave --resume out to begin one")
    if resume or not begun:
        return
    try:
        config, _ = read_config(place)
        what = f"{config.method} on {config.dataset}, seed {config.seed}"
    except LongtailError:
        what = f"its {CONFIG_NAME} cannot be read"
    if (place / "metrics.json").exists():
        raise UsageError(f"{place} already holds a run, finished ({what})", fix="choose another --out")
    raise UsageError(
        f"{place} already holds a run, unfinished ({what})",
        fix=f"choose another --out, or go on with it: {resume_command(place)}",
    )
