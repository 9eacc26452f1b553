"""What a run was asked to do: written to ``config.yaml``, compared on resume, enough to run it again."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from longtail import __version__
from longtail.errors import LongtailError, UsageError
from longtail.files import whole

CONFIG_NAME = "config.yaml"


@dataclass(frozen=True)
class RunConfig:
    """The request behind a run. Two runs with equal configurations (and equal runtime) have equal results.

    Attributes:
        dataset: Name of the data set.
        method: Method with modifiers, such as ``ldam+drw``.
        imbalance: Imbalance factor of the training subset.
        profile: ``exp`` or ``step``.
        subset_seed: Seed of the choice of images.
        dev_per_class: Images per class held out as a development set.
        protocol: ``common``, ``published`` or ``quick``.
        seed: Training seed: initial weights, order, augmentation.
        backbone: Name of the backbone.
        budget: Epochs, batch size, optimiser and schedule.
        options: The method's options that were given.
        precision: As asked: ``auto``, ``bf16`` or ``fp32``.
        eval_every: Epochs between evaluations on the test set (for the record only; nothing is chosen by them).
        teacher: Absolute path of the finished run that teaches, for methods that learn from one.
        source: Folder or list that images from files were read from.
        fingerprint: Digest of their contents with class and split.
        image_size: Side to which they were scaled.
        weights: What the backbone starts from: ``none``, ``imagenet`` or the absolute path of a file.
        freeze_backbone: Whether the backbone stays as it begins, so that stages train on stored features.
        crop_size: Side of the part of photographs that the network sees; None: the whole image.
    """

    dataset: str
    method: str
    imbalance: float
    profile: str
    subset_seed: int
    dev_per_class: int
    protocol: str
    seed: int
    backbone: str
    budget: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "auto"
    eval_every: int = 10
    teacher: str | None = None
    source: str | None = None
    fingerprint: str | None = None
    image_size: int | None = None
    weights: str = "none"
    freeze_backbone: bool = False
    crop_size: int | None = None

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> RunConfig:
        """Return the request that was written to a file; fields that are younger than the file have their defaults.

        Raises:
            KeyError: A field is missing.
        """
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values or f.default is MISSING})

    def differences(self, other: RunConfig) -> list[str]:
        """Return what differs, one ``name: ours, theirs`` each."""
        # Where the files lie makes no difference: the fingerprint says whether they are the same. Teachers were once
        # written as typed.
        mine, theirs = (
            replace(config, source=None, teacher=config.teacher and str(Path(config.teacher).resolve())).flat()
            for config in (self, other)
        )
        told = {"fingerprint": "the images have changed: fingerprint"}
        return [
            f"{told.get(key, key)} {mine.get(key)!r} here, {theirs.get(key)!r} there"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]

    def ground(self) -> dict[str, Any]:
        """Return by name what a stage's result depends on beside the stage: data, seed, network, start, precision."""
        stages = ("method", "protocol", "budget", "options", "teacher")
        others = ("eval_every", "source")
        return {key: value for key, value in asdict(self).items() if key not in (*stages, *others)}

    def flat(self) -> dict[str, Any]:
        """Return all that was asked for by name, fields of the budget and options of the method among them."""
        flat: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if isinstance(value, dict):
                flat.update(value)
            else:
                flat[key] = value
        return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}


def provenance() -> dict[str, Any]:
    """Return the versions, the machine, the commit and the command of this process."""
    import numpy
    import torch

    return {
        "longtail": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": git_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, or None outside one.

    It is read once a process: code that is imported stays as it is when somebody commits meanwhile.
    """
    here = Path(__file__)
    questions = (
        ("ls-files", "--error-unmatch", here.name),  # fails in a venv that lies in somebody else's repository
        ("rev-parse", "HEAD"),
        ("status", "--porcelain", "-uno"),
        ("ls-files", "--others", "--exclude-standard", "*.py"),  # a new method, say
    )
    try:
        answers = [
            subprocess.run(["git", "-C", str(here.parent), *words], capture_output=True, text=True, check=True).stdout
            for words in questions
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    _, head, *changes = (answer.strip() for answer in answers)
    return f"{head}+changes" if any(changes) else head


def write_config(folder: Path, config: RunConfig, **more: Any) -> None:
    """Write ``config.yaml``: the request and, beside it, what else is needed to understand and load the run."""
    text = yaml.safe_dump({"run": _plain(asdict(config)), **_plain(more)}, sort_keys=False, allow_unicode=True)
    with whole(folder / CONFIG_NAME) as file:
        file.write(text.encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def read_config(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Read ``config.yaml``.

    Returns:
        The request, and everything else in the file.

    Raises:
        LongtailError: There is no readable configuration.
    """
    path = folder / CONFIG_NAME
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = RunConfig.from_plain(content.pop("run"))
    except (FileNotFoundError, NotADirectoryError):
        raise _no_run(folder) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise LongtailError(
            f"{path} cannot be read as a run's configuration: {_reason(error)}",
            fix="mend it by hand or from a copy, or train the run again in a new folder",
        ) from error
    return config, content


def _no_run(folder: Path) -> LongtailError:
    """Build the error for a path that is no run folder: what it is instead, and which run may be meant."""
    if not folder.exists():
        return LongtailError(f"{folder} is not a run folder: there is no such folder")
    if not folder.is_dir():
        own = (folder.parent / CONFIG_NAME).exists()
        fix = f"name the folder that it lies in: {folder.parent}" if own else ""
        return LongtailError(f"{folder} is not a run folder: it is a file", fix=fix)
    runs = sorted(str(path.parent) for path in folder.glob(f"*/{CONFIG_NAME}"))
    if runs:
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        told = f"it holds {'the run' if len(runs) == 1 else 'runs:'} {', '.join(runs[:3])}{more}"
        return LongtailError(f"{folder} is not a run folder: {told}", fix="name one of them" if runs[1:] else "name it")
    return LongtailError(f"{folder} is not a run folder: it has no {CONFIG_NAME}")


def check_out(out: Path, source: str | None) -> None:
    """Refuse to write runs into the folder of images that they are trained on, where they would be a class of it.

    A run that was begun there already may go on.

    Args:
        out: A run folder, or one that shall hold run folders.
        source: Folder or list of the images; a name that is no path stands for other data, and None.

    Raises:
        UsageError: It lies there.
    """
    images = Path(os.path.realpath(source or ""))
    if source is None or not os.path.isabs(source) or not images.is_dir() or (out / CONFIG_NAME).exists():
        return
    place = Path(os.path.realpath(out))
    if place.is_relative_to(images):
        where = "is the folder of the images" if place == images else f"lies in the folder of the images, {source}"
        raise UsageError(f"the output folder {out} {where}; it would be taken for a class", fix="--out ELSEWHERE")


def resume_command(folder: Path) -> str:
    """Return the command that goes on with a run."""
    return f"longtail train --resume --out {shlex.quote(str(folder))}"


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    if isinstance(error, KeyError):
        return f"it has no entry {error}"
    return " ".join(str(error).split())
