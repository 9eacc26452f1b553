"""The flags that verbs share: of those that read a data set, and of those that train on it, budget and machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tyro.conf import arg

from longtail.cli.loading import say_origin, telling
from longtail.config import check_out
from longtail.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from longtail.benchmark.grid import Source
    from longtail.data import LongTailData

T = TypeVar("T")

Unset = Annotated[T | None, arg(help_behavior_hint="")]
"""A flag whose help says itself what holds without it."""

DATA_SETS = ("digits", "cifar10", "cifar100", "imagenet-lt", "places-lt", "inat17", "inat18")
"""All that `longtail.data.load` knows by name, which only torch could tell us."""


def check_data(name: str) -> None:
    """Refuse what is neither a data set nor a path that exists, before seconds are spent on importing torch.

    Raises:
        UsageError: There is nothing of that name.
    """
    if name in DATA_SETS or Path(name).expanduser().exists():
        return
    if os.sep in name:
        fix = "name a folder of class folders, a CSV file with the columns path and label, or a data set"
        raise UsageError(f"{name}: no such folder or file", fix=fix)
    error = unknown_name("data set", name, DATA_SETS)
    raise UsageError(f"{error.message}, and no folder or file is called so", fix=error.fix)


def check_place(out: str | None, name: str) -> None:
    """Refuse an output folder, or the default one, within the images, before these are read.

    Raises:
        UsageError: It lies there.
    """
    source = None if name in DATA_SETS else os.path.abspath(Path(name).expanduser())
    check_out(Path("runs" if out is None else out), source)


@dataclass(frozen=True)
class Reading:
    """Which data set is read, and how."""

    imbalance: Unset[float] = None
    """Imbalance factor, largest over smallest class (default: the data set's, digits 50, CIFAR 100)"""
    profile: Literal["exp", "step", "natural"] = "exp"
    """How the class sizes fall; those of images from files are natural: as they are"""
    image_size: Unset[int] = None
    """Side to which images from files are scaled (default: from their own sizes, at most 224)"""
    strict: Annotated[bool, arg(help_behavior_hint="")] = False
    """Stop where an image file has any problem"""
    data_root: Unset[str] = None
    """Folder of the data sets (default: LONGTAIL_DATA, else ./.data)"""
    download: Annotated[bool, arg(help_behavior_hint="")] = False
    """Fetch the data set where it is missing"""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print the result, or the error, as JSON on stdout"""
    quiet: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show no progress"""

    def read(self, name: str, **more: Any) -> LongTailData:
        """Load the data set and cut its tail; ``more`` are further arguments of `longtail.data.load`."""
        from longtail import data

        names = ("imbalance", "profile", "image_size", "strict", "download")
        with telling(quiet=self.quiet) as tell:
            asked = {field: getattr(self, field) for field in names}
            return data.load(name, root=self.data_root, tell=tell, **asked, **more)


@dataclass(frozen=True)
class Setup(Reading):
    """What a run is made of beside its method and seed."""

    subset_seed: int = 0
    """Seed of the choice of images, apart from the training seed; 0 is the subset of the papers"""
    dev_per_class: int = 0
    """Images per class held out as a balanced development set"""
    protocol: str = "common"
    """Budget: common (one for all methods), published (the papers') or quick (short, for checks)"""
    epochs: Unset[int] = None
    """Epochs; warm-up and schedule stretch or shrink with them (default: the protocol's)"""
    backbone: Unset[str] = None
    """Network (default: the papers' on this data set)"""
    weights: str = "none"
    """What the backbone starts from: none, imagenet (downloaded), or the path of a .pth or .safetensors file"""
    freeze_backbone: Annotated[bool, arg(help_behavior_hint="")] = False
    """Leave the backbone as it begins: compute features once, then train classifiers on them in seconds"""
    crop_size: Unset[int] = None
    """Side of the part of photographs that the network sees (default: all; 224 where 256 are stored)"""
    device: str = "auto"
    """cpu, cuda, cuda:N or auto"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the network's arithmetic; auto takes the faster one"""
    threads: str = "auto"
    """CPU threads; auto tries which number is fastest now"""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether the network is compiled; auto does it where the run is long enough to pay"""
    eval_every: Unset[int] = None
    """Epochs between looks at the test set, for the record only (default: 20 looks a run, fewer if they take long)"""
    track: Unset[Literal["tensorboard", "wandb", "mlflow"]] = None
    """Experiment tracker that hears of each run, an extra of the same name (docs/tracking.md)"""

    def load_data(self, name: str) -> LongTailData:
        """Load the data set with the subset and development set that the runs train on, and say what was decided."""
        loaded = self.read(name, subset_seed=self.subset_seed, dev_per_class=self.dev_per_class)
        if not self.quiet:
            say_origin(loaded)
        return loaded

    def source(self, name: str) -> Source:
        """Return how the processes of a grid load the data set themselves."""
        from longtail.benchmark.grid import Source

        same = ("imbalance", "profile", "subset_seed", "dev_per_class", "image_size", "strict")
        return Source(name, root=self.data_root, **{field: getattr(self, field) for field in same})

    def asked(self, options: Mapping[str, str]) -> dict[str, Any]:
        """Return options of budget and method, the number of epochs among them where it was given."""
        return {**options, **({} if self.epochs is None else {"epochs": self.epochs})}

    def request(self) -> dict[str, Any]:
        """Return the part of the request that `longtail.request.make_config` takes from these flags."""
        names = ["protocol", "backbone", "precision", "eval_every"]
        names += ["weights", "freeze_backbone", "crop_size"]
        return {name: getattr(self, name) for name in names}

    def machine(self) -> dict[str, Any]:
        """Return how the machine is to be used, and who hears of it.

        Raises:
            UsageError: The tracker is not installed.
        """
        from longtail import tracking

        tracking.check(self.track)
        return {name: getattr(self, name) for name in ("device", "threads", "compile", "track")}
