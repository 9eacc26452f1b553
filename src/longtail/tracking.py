"""Experiment trackers that hear of a run while it trains: TensorBoard, Weights & Biases and MLflow.

The run folder holds everything without them. A tracker shows the same numbers where people keep those of their other
work: ``STAGE/loss``, ``STAGE/lr`` and ``STAGE/images_per_second`` of each epoch, ``test/top1`` where the test set was
looked at, and ``final/...`` at the end. A step is an epoch, counted over all stages.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import yaml

from longtail.config import RunConfig
from longtail.errors import LongtailError, UsageError, unknown_name
from longtail.files import explained, whole

TRACKERS_NAME = "trackers.json"
"""Which trackers know the run, and by what name; a resumed run goes on with these."""
PROJECT = "longtail"
_FINAL = ("top1", "top5", "many", "medium", "few", "ece", "experts_used", "train_seconds")


class Tracker(Protocol):
    """Where numbers of a run go.

    Attributes:
        id: What the run is called there; given back as ``known`` when the run goes on.
    """

    id: str

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str | None, step: int) -> None:
        """Begin, or go on.

        Args:
            folder: The run folder.
            config: The request, flat.
            known: The ``id`` of an earlier part of this run; None: it is new.
            step: Epochs that are done.
        """

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of an epoch."""

    def final(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of the whole run, after its last epoch."""

    def close(self, finished: bool) -> None:
        """Hear that the run ended, or that it stopped before its end."""


class TensorBoard:
    """Event files in ``tensorboard`` in the run folder; ``tensorboard --logdir runs`` shows those of all runs."""

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str | None, step: int) -> None:
        self.id = known or "tensorboard"
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        # What a killed run wrote after its last state comes again.
        self._writer = writer(str(folder / self.id), purge_step=step + 1 if known else None)
        if known is None:
            text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
            self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    final = log

    def close(self, finished: bool) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project ``WANDB_PROJECT`` (``longtail``); ``WANDB_MODE=offline`` keeps it on this machine."""

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str | None, step: int) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=known,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(folder)),
            config=dict(config),
            reinit="create_new",  # a run that the caller has open stays the caller's
            settings=wandb.Settings(console="off"),  # the terminal belongs to the progress bar
        )
        self.id = str(self._run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send the numbers; those that an earlier part of the run has sent already stay as they are."""
        if step >= self._run.step:
            self._run.log(dict(values), step=step, commit=True)  # or an epoch is seen when the next one ends

    def final(self, values: Mapping[str, float], step: int) -> None:
        """Put the numbers beside the curves."""
        self._run.summary.update(dict(values))

    def close(self, finished: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of the experiment ``MLFLOW_EXPERIMENT_NAME`` (``longtail``), where ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str | None, step: int) -> None:
        mlflow = importlib.import_module("mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient()
        if known is not None:
            self.id = known
            self._client.update_run(known, status="RUNNING")
            return
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        self.id = self._client.create_run(experiment.experiment_id, run_name=folder.name).info.run_id
        self._client.log_batch(self.id, params=[mlflow.entities.Param(k, str(v)) for k, v in config.items()])

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send metrics."""
        now = int(1000 * time.time())
        self._client.log_batch(self.id, metrics=[self._metric(k, v, now, step) for k, v in values.items()])

    final = log

    def close(self, finished: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
"""By the name of the package that each needs."""
_HINTS = {"wandb": "run `wandb login`, or set WANDB_MODE=offline", "mlflow": "see MLFLOW_TRACKING_URI"}


def check(name: str | None) -> None:
    """Refuse a tracker that is not there.

    Raises:
        UsageError: The name is unknown, or its package is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise unknown_name("tracker", name, list(TRACKERS))
    if importlib.util.find_spec(name) is None:
        raise UsageError(
            f"--track {name} needs the package {name}, which is not installed", fix=f"pip install 'longtail[{name}]'"
        )


class Tracking:
    """Tells trackers of a run while the block lasts.

    One that was asked for and does not start is an error. After that training goes before: a tracker that fails is
    given up with a warning.

    Args:
        name: The tracker that is asked for; None: only those that know the run from before.
        folder: The run folder.
        config: The request.
        history: Lines of the epochs that are done; a tracker that is new to the run hears of them first.

    Raises:
        LongtailError: The tracker that was asked for does not start.
    """

    def __init__(self, name: str | None, folder: Path, config: RunConfig, history: Sequence[Mapping[str, Any]]) -> None:
        self._trackers: dict[str, Tracker] = {}
        path = folder / TRACKERS_NAME
        ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for one in dict.fromkeys([*ids, *([] if name is None else [name])]):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tracker = TRACKERS[one](folder, config.flat(), ids.get(one), len(history))
                if one not in ids:
                    for step, record in enumerate(history, start=1):
                        tracker.log(numbers(record), step)
            except Exception as error:  # any: a network, a login, a server, or the package's own mistakes
                if one == name:
                    raise LongtailError(f"{one} does not start: {_line(error)}", fix=_HINTS.get(one, "")) from error
                warnings.warn(f"{one} does not go on, the run does: {_line(error)}", RuntimeWarning, stacklevel=2)
            else:
                self._trackers[one] = tracker
                ids[one] = tracker.id
        if ids:
            with explained(path), whole(path) as file:
                file.write(json.dumps(ids).encode())

    def epoch(self, record: Mapping[str, Any], step: int) -> None:
        """Tell of an epoch, with its line of the history and its number over all stages, from 1."""
        self._tell(lambda tracker: tracker.log(numbers(record), step))

    def final(self, metrics: Mapping[str, Any], step: int) -> None:
        """Tell of the run's metrics."""
        values = {f"final/{key}": metrics[key] for key in _FINAL if metrics.get(key) is not None}
        self._tell(lambda tracker: tracker.final(values, step))

    def _tell(self, say: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                say(tracker)
            except Exception as error:  # any, as above
                del self._trackers[name]
                warnings.warn(f"{name} is given up, the run goes on: {_line(error)}", RuntimeWarning, stacklevel=3)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, tracker in self._trackers.items():
            try:
                tracker.close(finished=kind is None)
            except Exception as failure:  # any, as above
                warnings.warn(f"{name} was not closed: {_line(failure)}", RuntimeWarning, stacklevel=2)


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what trackers hear of a line of the history."""
    stage = record["stage"]
    told = {f"{stage}/{key}": record[key] for key in ("loss", "lr", "images_per_second")}
    told |= {f"{stage}/{key}": value for key, value in record.get("chosen", {}).items()}
    return told | ({"test/top1": record["test_top1"]} if "test_top1" in record else {})


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
