"""`longtail train`: one run, from a name to a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.box import SIMPLE
from rich.table import Table
from tyro.conf import Positional, arg

from longtail.cli import early
from longtail.cli.arguments import flags, parse_open
from longtail.cli.output import note, of_classes, percent, say, say_json, say_table
from longtail.cli.progress import shown
from longtail.cli.setup import Setup, Unset, check_data, check_place
from longtail.config import CONFIG_NAME, RunConfig, read_config, resume_command
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.run import Run

SCORES = {"top1": "top-1", "many": "many", "medium": "medium", "few": "few"}


@dataclass(frozen=True)
class What:
    """The flags that stand first in the help."""

    data: Positional[Unset[str]] = None
    """digits (the default), cifar10, cifar100, a folder of class folders, a CSV file (path,label[,split]), COCO's JSON,
    or by their lists imagenet-lt, places-lt, inat17, inat18 (docs/data.md)"""
    method: str = "bsce"
    """METHOD or METHOD+MODIFIER+..., such as ldam+drw; `longtail methods` lists them"""
    seed: int = 0
    """Seed of initial weights, order and augmentation"""
    out: Unset[str] = None
    """The run folder (default: one under runs/, named after the request)"""
    resume: Annotated[bool, arg(help_behavior_hint="")] = False
    """Go on with the run in --out"""
    stage1: Unset[str] = None
    """Another run with the same first stage, or stages, which are then not trained again"""
    teacher: Unset[str] = None
    """A finished run to learn from, for methods that distil; `longtail methods` says which"""


@dataclass(frozen=True)
class Train(Setup, What):  # fields of the last base come first
    """Train a method on a data set, evaluate it, and write a run folder.

    Any other --NAME VALUE is a field of the budget (--lr, --batch-size, --weight-decay, --momentum, --nesterov,
    --warmup, --schedule, --milestones, --decay) or an option of the method, such as --tau or --ldam.max-m:
    `longtail methods NAME` lists them.

    `longtail train --resume --out DIR` goes on with a run and needs nothing else; DATA, where its images have moved.
    """


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments, options, given = parse_open(Train, "train", words)
    asked: dict[str, Any] = dict(options)
    if arguments.resume and arguments.out is not None and (arguments.data is None or _begun(arguments.out)):
        arguments, asked = stored_request(arguments, asked, given)
    check_data(arguments.data or "digits")
    from longtail import methods

    methods.check_options([arguments.method], asked, flags(Train))
    check_place(arguments.out, arguments.data or "digits")
    _check_early(arguments, asked)
    result = _train(arguments, asked)
    if arguments.json:
        say_json({**result.metrics, "path": str(result.path)})
    else:
        _show(result)
    return 0


def _check_early(arguments: Train, options: Mapping[str, Any]) -> None:
    """Find what is wrong whatever the data are; of a run that goes on, only its folder and the machine can be."""
    early.check_free(arguments.out, resume=arguments.resume)
    if not arguments.resume:
        run = (arguments.method, arguments.asked(options))
        others = {"teacher": arguments.teacher, "stage1": arguments.stage1}
        early.check_request(arguments, arguments.data or "digits", [run], seed=arguments.seed, **others)
    early.check_machine(arguments.device, arguments.threads, quiet=arguments.quiet)


def _begun(folder: str | Path) -> bool:
    return (Path(folder) / CONFIG_NAME).exists()


def stored_request(arguments: Train, options: Mapping[str, Any], given: set[str]) -> tuple[Train, dict[str, Any]]:
    """Rebuild from a run folder the command that began it.

    Args:
        arguments: What was typed; ``out`` is the folder.
        options: Options that were typed.
        given: Names of the arguments that were typed; these are kept, so that a difference is noticed and named.

    Returns:
        The arguments and options of a `longtail train` that continues the run.

    Raises:
        LongtailError: The folder holds no run, or its images are not where they were.
        UsageError: Data are named, and of another kind than the run's.
    """
    config, more = read_config(Path(arguments.out or ""))
    _check_data(arguments, config)
    names = {f.name for f in fields(RunConfig)} & {f.name for f in fields(Train)}
    stored: dict[str, Any] = {name: getattr(config, name) for name in names}
    runtime = more.get("runtime") or {}
    if more.get("processes", 1) == 1 and runtime:  # several processes each pick their own device
        stored["device"] = runtime["device"]
    if runtime:
        stored |= {"threads": str(runtime["threads"]), "compile": "on" if runtime["compile"] else "off"}
    stored |= {"data": arguments.data or config.source or config.dataset, "stage1": more.get("stage1")}
    kept = replace(arguments, **{name: value for name, value in stored.items() if name not in given})
    return kept, {**config.budget, **config.options, **options}


def _check_data(arguments: Train, config: RunConfig) -> None:
    """See that a run can go on with the data that are named, or with its own; contents are compared when they are read.

    Raises:
        LongtailError: Its images are not where they were.
        UsageError: The data named are of another kind.
    """
    resume = f"--resume --out {shlex.quote(arguments.out or '')}"
    if arguments.data is None:
        if config.source is not None and not Path(config.source).exists():
            raise LongtailError(
                f"{config.source}: the images of the run are not there any more",
                fix=f"where they have moved: longtail train NEW-PLACE {resume}",
            )
        return
    from longtail.data import DATASETS

    if arguments.data != config.dataset and (config.source is None or arguments.data in DATASETS):
        raise UsageError(
            f"{arguments.out} was trained on {config.dataset}, not on {arguments.data}",
            fix=f"to go on with it: longtail train {resume}",
        )


def _train(arguments: Train, options: dict[str, Any]) -> Run:
    from longtail import borrowing, request, session
    from longtail.folder import RunFolder
    from longtail.training.loop import InterruptedRunError

    machine = arguments.machine()
    data = arguments.load_data(arguments.data or "digits")
    if arguments.resume and arguments.out is not None:
        data = RunFolder(Path(arguments.out)).as_begun(data)
    options = arguments.asked(options)
    own: dict[str, Any] = {"seed": arguments.seed, "teacher": arguments.teacher, "options": options}
    config = request.make_config(data, arguments.method, **own, **arguments.request())
    folder = Path(arguments.out) if arguments.out is not None else request.default_folder(config)
    task = request.Task.of(data, config)
    recipe = request.build_recipe(config, task, borrowing.teacher_of(config, task))
    if config.freeze_backbone and config.weights == "none" and not arguments.quiet:
        note("the frozen backbone has random weights; --weights names better ones (imagenet, or a file)")
    epochs = [stage.epochs for stage in recipe.stages]
    try:
        with shown(epochs, quiet=arguments.quiet, opening=_opening(config, folder)) as reporter:
            return session.train(
                data,
                config.method,
                seed=config.seed,
                out=folder,
                resume=arguments.resume,
                stage1=arguments.stage1,
                teacher=arguments.teacher,
                reporter=reporter,
                **arguments.request(),
                **machine,
                **options,
            )
    except InterruptedRunError as stop:
        raise LongtailError(f"{stop.message}; everything is kept in {folder}", fix=_how(arguments, folder)) from stop
    except KeyboardInterrupt:
        fix = _how(arguments, folder) if _begun(folder) else "nothing was written yet; give the same command again"
        raise LongtailError("interrupted at once; the work since the last save is lost", fix=fix) from None


def _how(arguments: Train, folder: Path) -> str:
    root = f" --data-root {shlex.quote(arguments.data_root)}" if arguments.data_root else ""
    return f"to go on: {resume_command(folder)}{root}"


def _opening(config: RunConfig, folder: Path) -> str:
    return (
        f"{config.method} on {config.dataset}, imbalance {config.imbalance:g}, protocol {config.protocol}, "
        f"{config.budget['epochs']} epochs, seed {config.seed}, in {folder}"
    )


def _show(result: Run) -> None:
    from longtail.evaluation import shot_groups

    metrics = result.metrics
    groups = shot_groups(metrics["class_counts"])
    table = Table(box=SIMPLE, show_header=False)
    for name, title in SCORES.items():
        told = "all test images" if name not in groups else of_classes(groups[name].tolist(), metrics["per_class"])
        table.add_row(title, percent(metrics[name]), told)
    say_table(table)
    say(f"run   {result.path}")
    say(f"next  longtail evaluate {shlex.quote(str(result.path))}")
