"""A run on disk: its configuration, metrics and model."""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from longtail import __version__
from longtail.config import CONFIG_NAME, RunConfig, read_config
from longtail.errors import LongtailError, UsageError
from longtail.evaluation import Posterior, Prior, as_prior, fit_posterior
from longtail.evaluation.checks import check_logits
from longtail.folder import LOGITS_NAME, MODEL_NAME, missing_result, read_test_logits, written_again
from longtail.networks import Network, Renormalise, Teacher
from longtail.request import Task, build_recipe, build_run_network, network_shape
from longtail.training.inference import predict_logits
from longtail.training.recipe import enter_structure
from longtail.training.runtime import Runtime


class Run:
    """A finished or unfinished run folder.

    Args:
        path: The folder.

    Raises:
        LongtailError: The folder holds no run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: RunConfig
        self.config, self._more = read_config(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, method={self.config.method!r}, dataset={self.config.dataset!r})"

    @property
    def finished(self) -> bool:
        """Whether the run has its metrics."""
        return (self.path / "metrics.json").exists()

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``.

        Raises:
            LongtailError: The run is not finished, or the file is damaged.
        """
        try:
            content: dict[str, Any] = json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise missing_result(self.path, "metrics.json") from None
        except (OSError, ValueError) as error:
            raise LongtailError(f"{self.path / 'metrics.json'} cannot be read: {error}") from error
        return content

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record per epoch."""
        path = self.path / "history.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    @property
    def runtime(self) -> Runtime:
        """Device, precision, threads and compilation that the run settled on.

        Raises:
            LongtailError: The configuration does not say.
        """
        try:
            return Runtime(**self._more["runtime"])
        except (KeyError, TypeError) as error:
            raise self._not_understood("runtime", error) from error

    @property
    def task(self) -> Task:
        """Class counts, class names, image shape and normalisation of the training data.

        Raises:
            LongtailError: The configuration does not say.
        """
        try:
            return Task.from_plain(self._more["data"])
        except (KeyError, TypeError) as error:
            raise self._not_understood("data", error) from error

    def _not_understood(self, what: str, error: Exception) -> LongtailError:
        """Build the error for a configuration that another version wrote, or that was changed by hand."""
        made_by = self._more.get("made_by")
        version = made_by.get("longtail", "unknown") if isinstance(made_by, dict) else "unknown"
        reason = error.message if isinstance(error, LongtailError) else f"{type(error).__name__}: {error}"
        return LongtailError(
            f"{self.path / CONFIG_NAME}: {what} is not understood ({reason})",
            fix=f"it was written by longtail {version}, this is {__version__}",
        )

    @cached_property
    def _model(self) -> tuple[Network, nn.Module]:
        try:
            recipe = build_recipe(self.config, self.task)
            network = build_run_network(self.config, self.task, recipe)
        except UsageError as error:  # a method, option or backbone that this version does not have
            raise self._not_understood("the request", error) from error
        for stage in recipe.stages:
            network = enter_structure(network, stage, network_shape(self.config, self.task))
        path = self.path / MODEL_NAME
        try:
            network.load_state_dict(load_file(path))
        except FileNotFoundError:
            raise missing_result(self.path, MODEL_NAME) from None
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise LongtailError(
                f"{path} is damaged or does not fit its configuration: {reason}",
                fix=f"remove the file, then {written_again(self.path)}",
            ) from error
        return network.eval().to(memory_format=torch.channels_last), recipe.inference  # type: ignore[call-overload]

    @property
    def network(self) -> Network:
        """The trained network, in evaluation mode on the CPU."""
        return self._model[0]

    def teacher(self, student: Task | None = None) -> Teacher:
        """Return a copy of the trained model that another run can learn from.

        Args:
            student: The task of that run, whose images may be normalised otherwise; None: they are as this run's.
        """
        own, given = ((task.mean, task.std) for task in (self.task, student or self.task))
        renormalise = Renormalise(given, own) if given != own else None
        return Teacher(copy.deepcopy(self._model[0]), self._model[1], renormalise)

    def logits(self, images: np.ndarray[Any, Any] | Tensor) -> np.ndarray[Any, Any]:
        """Return the test-time logits of images, (N, C), float32.

        Args:
            images: uint8, (N, channels, height, width), of the size that the run was trained on.

        Raises:
            ValueError: The images have another type or shape.
        """
        expected = f"expected uint8 (N, {', '.join(map(str, self.task.image_shape))})"
        try:
            batch = torch.as_tensor(images)
        except (TypeError, ValueError, RuntimeError):
            files = "files are answered by longtail.predict.predict_files(run, files)"
            raise ValueError(f"images are of type {type(images).__name__}; {expected}; {files}") from None
        if batch.dtype != torch.uint8 or batch.ndim != 4 or tuple(batch.shape[1:]) != tuple(self.task.image_shape):
            raise ValueError(f"images are {batch.dtype} {tuple(batch.shape)}; {expected}")
        network, inference = self._model
        plain = self.task.plain_transforms()
        runtime = Runtime(threads=torch.get_num_threads())
        return np.asarray(predict_logits(network, inference, batch, plain, runtime).numpy())

    def predict(self, images: np.ndarray[Any, Any] | Tensor) -> np.ndarray[Any, Any]:
        """Return the predicted class numbers of images, (N,), int64; see `logits` for the images."""
        return np.asarray(self.logits(images).argmax(axis=1))

    def test_logits(self, *, experts: bool = False) -> dict[str, NDArray[Any]]:
        """Return what the run answered on the test images: ``logits`` (N, C) and ``targets`` (N,).

        Args:
            experts: Return ``expert_logits`` (E, N, C) too, where the run has experts; NaN where one was not asked.

        Raises:
            LongtailError: The run is not finished, or the file is missing, damaged, or of another run.
        """
        try:
            found = read_test_logits(self.path, experts=experts)
        except FileNotFoundError:
            raise missing_result(self.path, LOGITS_NAME) from None
        classes = len(self.task.class_counts)
        try:
            logits, targets = check_logits(found["logits"], found["targets"])
            if logits.shape[1] != classes:
                raise ValueError(f"it has {logits.shape[1]} classes, the run {classes}")
            each = found.get("expert_logits")
            if each is not None and each.shape[1:] != logits.shape:
                raise ValueError(f"expert_logits are {each.shape} beside logits {logits.shape}")
        except ValueError as error:
            raise LongtailError(
                f"{self.path / LOGITS_NAME} does not fit its run: {error}",
                fix=f"remove the file, then {written_again(self.path)}",
            ) from error
        return {**found, "logits": logits, "targets": targets}

    @cached_property
    def posterior(self) -> Posterior:
        """How logits become class probabilities, fitted on the test images, which no method trains on.

        Where their logits are not there any more, it is the plain softmax, and its ``held_out`` is 0.

        Raises:
            LongtailError: The logits are damaged, or those of another run.
        """
        if not (self.path / LOGITS_NAME).exists():
            return Posterior(self.task.class_counts)
        found = self.test_logits()
        return fit_posterior(found["logits"], found["targets"], self.task.class_counts)

    def predict_proba(
        self, images: np.ndarray[Any, Any] | Tensor, prior: Prior | None = None, *, match: bool = False
    ) -> np.ndarray[Any, Any]:
        """Return the calibrated class probabilities of images, (N, C), float32.

        Args:
            images: See `logits`.
            prior: How frequent the classes are where the images come from: numbers, (C,), a mapping of class name to
                number, ``"balanced"``, ``"train"``, or the path of a file; None: as the model has it.
            match: Make the mean over these images the prior, see `Posterior.matched`; for hundreds of images or more.

        Raises:
            ValueError: The images or the prior have another type or shape, or there is no prior to match.
            UsageError: A mapping or a file does not say a number for each class.
        """
        shares = None if prior is None else as_prior(prior, self.task.class_counts, self.task.class_names)
        if not match:
            return self.posterior.probabilities(self.logits(images), shares).astype(np.float32)
        if shares is None:
            raise ValueError("predict_proba: match needs a prior")
        return self.posterior.matched(self.logits(images), shares).astype(np.float32)


def load(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        LongtailError: The folder holds no run.
    """
    return Run(path)
