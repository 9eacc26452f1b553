"""One training run, from what is asked for to the finished run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from longtail import data as datasets
from longtail import tracking
from longtail.config import RunConfig, check_out
from longtail.data import LongTailData
from longtail.errors import UsageError
from longtail.folder import RunFolder
from longtail.request import default_folder, make_config
from longtail.run import Run
from longtail.training.progress import Reporter, SilentReporter
from longtail.training.runtime import Runtime, pick_device
from longtail.training.world import joined
from longtail.underway import Session

DEFAULT_METHOD = "bsce"


def train(
    data: str | os.PathLike[str] | LongTailData = "digits",
    method: str = DEFAULT_METHOD,
    *,
    imbalance: float | None = None,
    profile: str = "exp",
    subset_seed: int = 0,
    dev_per_class: int = 0,
    data_root: str | Path | None = None,
    protocol: str = "common",
    seed: int = 0,
    backbone: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: str | int = "auto",
    compile: str = "auto",
    eval_every: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    stage1: str | Path | None = None,
    teacher: str | Path | None = None,
    download: bool = False,
    reporter: Reporter | None = None,
    runtime: Runtime | None = None,
    image_size: int | None = None,
    strict: bool = False,
    weights: str | Path = "none",
    freeze_backbone: bool = False,
    crop_size: int | None = None,
    track: str | None = None,
    **options: Any,
) -> Run:
    """Train a method on a data set and evaluate it; the result is a run folder.

    Args:
        data: Name of a data set, path of images (docs/data.md), or a loaded data set, which stands beside no
            argument that says how to load one.
        method: ``METHOD`` or ``METHOD+MODIFIER+...``; see `longtail.methods.names`.
        imbalance: Imbalance factor; None: the data set's default.
        profile: ``exp`` or ``step``.
        subset_seed: Seed of the choice of images, apart from ``seed``; 0 is the subset of the papers.
        dev_per_class: Images per class held out as a balanced development set.
        data_root: Folder of the data sets; default: ``LONGTAIL_DATA``, then ``./.data``.
        protocol: ``common``, ``published`` or ``quick``.
        seed: Seed of initial weights, order and augmentation.
        backbone: Name of the backbone; None: the one the papers use on this data set.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``bf16`` or ``fp32``.
        threads: ``auto`` or a number of CPU threads.
        compile: ``auto``, ``on`` or ``off``.
        eval_every: Epochs between looks at the test set, for the record only; None: 20 looks a run, or fewer, so
            that they take a twentieth of the time at most.
        out: The run folder; None: under ``runs/``, named after the request.
        resume: Go on in ``out``, with the threads and the compilation that the run was begun with where these are
            ``auto``.
        stage1: Another run, of whatever method, with the same first stage or stages; they are not trained again.
        teacher: A finished run on the same classes to learn from, for methods that do (`longtail methods`).
        download: Fetch the data set where it is missing.
        reporter: Hears the progress.
        runtime: Settled choices to take over as they are; None: settle what is open by a short measurement. A
            comparison hands on those of its first run, so that all its runs compute alike.
        image_size: Side to which images from files are scaled; None: chosen from their own sizes.
        strict: Whether any problem with an image file is an error.
        weights: What the backbone starts from (docs/photographs.md): ``none``, ``imagenet``, or the path of a file.
        freeze_backbone: Leave the backbone as it begins: compute features once, and train classifiers on them.
        crop_size: Side of the part of photographs that the network sees; None: all, but 224 where 256 are stored.
        track: Experiment tracker that hears of the run: ``tensorboard``, ``wandb`` or ``mlflow``. A resumed run goes on
            with those that it had.
        **options: Fields of the budget (``epochs``, ``lr`` ...) and of the method, by name.

    Returns:
        The finished run.

    Raises:
        UsageError: The request is wrong.
        LongtailError: Data, files or training failed, or another process trains in the folder; nothing that was there
            is lost.
    """
    tracking.check(track)
    loading: dict[str, Any] = {
        "imbalance": imbalance,
        "profile": profile,
        "subset_seed": subset_seed,
        "dev_per_class": dev_per_class,
        "download": download,
        "image_size": image_size,
        "strict": strict,
    }
    if not isinstance(data, str | os.PathLike | LongTailData):
        raise UsageError(
            f"data is a name, a path or a LongTailData, got {type(data).__name__}",
            fix="for arrays there is longtail.LongTailClassifier",
        )
    loaded = data if isinstance(data, LongTailData) else datasets.load(data, root=data_root, **loading)
    if resume and out is not None:
        loaded = RunFolder(Path(out)).as_begun(loaded)
    config = make_config(
        loaded,
        method,
        protocol=protocol,
        seed=seed,
        backbone=backbone,
        precision=precision,
        eval_every=eval_every,
        options=options,
        teacher=teacher,
        weights=weights,
        freeze_backbone=freeze_backbone,
        crop_size=crop_size,
    )
    if isinstance(data, LongTailData):
        _check_unasked(config, {**loading, "data_root": data_root})
    folder = RunFolder(Path(out) if out is not None else default_folder(config))
    check_out(folder.path, config.source)
    target = pick_device(device if runtime is None else runtime.device)
    with joined(target) as world, closing(folder):
        session = Session(config, loaded, folder, world, reporter or SilentReporter())
        folder.claim(config, resume, session.fingerprint)
        world.barrier()
        if not folder.finished or folder.mendable:
            session.run(target, threads=threads, compile=compile, stage1=stage1, settled=runtime, track=track)
        world.barrier()
    return Run(folder.path)


def _check_unasked(config: RunConfig, loading: Mapping[str, Any]) -> None:
    """Refuse arguments of loading beside a loaded set, but for defaults and what the set says of itself.

    Raises:
        UsageError: One would have no effect.
    """
    for name, value in loading.items():
        there = getattr(config, name, None)
        if value not in (None, False, 0, "exp", there):
            raise UsageError(
                f"{name} is {value!r}, but the data set is loaded already"
                + ("" if there is None else f", with {there!r}"),
                fix="leave it out, or give it to longtail.data.load",
            )
