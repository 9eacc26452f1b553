"""One training run from request to run folder: data, recipe, network, training, evaluation, files."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import distributed as dist
from torch import nn

from longtail import data as datasets
from longtail import methods
from longtail.augment import Compose, Normalize
from longtail.config import CONFIG_NAME, RunConfig, provenance, read_config, write_config
from longtail.data import LongTailData
from longtail.errors import LongtailError, UsageError
from longtail.evaluation import metrics as evaluate
from longtail.methods.options import assign, convert
from longtail.networks import Network, build_network
from longtail.training.budget import Budget, Context, augmentation_for, budget_for, default_backbone
from longtail.training.inference import predict_logits
from longtail.training.loader import check_batch_size
from longtail.training.loop import Position, Reporter, SilentReporter, Training
from longtail.training.recipe import Recipe
from longtail.training.runtime import Runtime, pick_device, settle, thread_count
from longtail.training.state import load_state, save_state, write_atomically
from longtail.training.world import World, joined

if TYPE_CHECKING:
    from longtail.run import Run

DEFAULT_METHOD = "bsce"
SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class Task:
    """What the trained model must know of its data; part of the run folder.

    Attributes:
        name: Name of the data set.
        class_counts: Training images per class.
        class_names: Names of the classes.
        image_shape: (C, H, W).
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel.
    """

    name: str
    class_counts: tuple[int, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, data: LongTailData) -> Task:
        """Return the task of a data set."""
        return cls(data.name, tuple(data.class_counts), data.class_names, data.image_shape, data.mean, data.std)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Task:
        """Return the task that was written to a run's configuration."""
        kept: dict[str, Any] = {f.name: values[f.name] for f in fields(cls)}
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return cls(**plain)

    def plain_transforms(self) -> Compose:
        """Return the test-time transforms."""
        return Compose((Normalize(self.mean, self.std),))


def build_recipe(config: RunConfig, task: Task) -> Recipe:
    """Build the recipe of a request."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.budget.items()}
    budget = Budget(**values)
    context = Context(
        class_counts=task.class_counts,
        protocol=config.protocol,
        budget=budget,
        augment=augmentation_for(task.name, task.mean, task.std),
        plain=task.plain_transforms(),
    )
    return methods.build(config.method, context, config.options)


def build_run_network(config: RunConfig, task: Task, recipe: Recipe) -> Network:
    """Build the network of a request with the initial weights that its seed gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_network(config.backbone, len(task.class_counts), task.image_shape[0], recipe.head)


def make_config(
    data: LongTailData,
    method: str,
    *,
    subset_seed: int,
    protocol: str,
    seed: int,
    backbone: str | None,
    precision: str,
    eval_every: int | None,
    options: Mapping[str, Any],
) -> RunConfig:
    """Settle a request: names checked, the protocol's budget with the given changes, the method's options by type.

    Raises:
        UsageError: A name or value is wrong.
    """
    name = methods.canonical(method)
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be at least 0")
    budget, rest = _budget(data.name, protocol, options)
    known = list(methods.options(name).values())
    by_part = [{o.name: o for o in known if o.part == part} for part in methods.parse(name)]
    _check_names(rest, known)
    given = {
        f"{part}.{key}": value
        for part, arguments in zip(methods.parse(name), assign(by_part, rest), strict=True)
        for key, value in arguments.items()
    }
    every = max(1, budget.epochs // 20) if eval_every is None else eval_every
    if every < 1:
        raise UsageError(f"eval_every is {every}; it must be at least 1 epoch")
    return RunConfig(
        dataset=data.name,
        method=name,
        imbalance=data.imbalance,
        profile=data.profile,
        subset_seed=subset_seed,
        dev_per_class=0 if data.dev is None else len(data.dev) // data.num_classes,
        protocol=protocol,
        seed=seed,
        backbone=backbone or default_backbone(data.name),
        budget=asdict(budget),
        options=given,
        precision=precision,
        eval_every=every,
    )


def _check_names(options: Mapping[str, Any], known: list[methods.Option]) -> None:
    from longtail.errors import unknown_name

    names = {o.name for o in known} | {f"{o.part}.{o.name}" for o in known}
    for key in options:
        if key.replace("-", "_") not in names | {n.replace("-", "_") for n in names}:
            raise unknown_name("option", key, names | {f.name for f in fields(Budget)})


def _budget(dataset: str, protocol: str, options: Mapping[str, Any]) -> tuple[Budget, dict[str, Any]]:
    """Return the protocol's budget with the changes among the options, and the options that are not the budget's."""
    import typing

    hints = typing.get_type_hints(Budget)
    changes = {k.replace("-", "_"): v for k, v in options.items() if k.replace("-", "_") in hints}
    changes = {k: convert(k, v, hints[k]) for k, v in changes.items() if v is not None}
    rest = {k: v for k, v in options.items() if k.replace("-", "_") not in hints}
    budget = budget_for(dataset, protocol)
    if "epochs" in changes:
        budget = budget.scaled(changes["epochs"])
    return replace(budget, **changes), rest


def train(
    data: str | LongTailData = "digits",
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
    download: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> Run:
    """Train a method on a data set and evaluate it; the result is a run folder.

    Args:
        data: Name of a data set, or a loaded one.
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
        eval_every: Epochs between looks at the test set, for the record only; None: 20 looks a run.
        out: The run folder; None: under ``runs/``, named after the request.
        resume: Go on in ``out``.
        stage1: A finished run whose training equals the method's first stage; it is not trained again.
        download: Fetch the data set where it is missing.
        reporter: Hears the progress.
        **options: Fields of the budget (``epochs``, ``lr`` ...) and of the method, by name.

    Returns:
        The finished run.

    Raises:
        UsageError: The request is wrong.
        LongtailError: Data, files or training failed; nothing that was there is lost.
    """
    from longtail.run import load

    if isinstance(data, str):
        data = datasets.load(
            data,
            imbalance=imbalance,
            profile=profile,
            subset_seed=subset_seed,
            root=data_root,
            dev_per_class=dev_per_class,
            download=download,
        )
    config = make_config(
        data,
        method,
        subset_seed=subset_seed,
        protocol=protocol,
        seed=seed,
        backbone=backbone,
        precision=precision,
        eval_every=eval_every,
        options=options,
    )
    folder = Path(out) if out is not None else default_folder(config)
    target = pick_device(device)
    with joined(target) as world:
        session = _Session(config, data, folder, world, reporter or SilentReporter())
        if session.open(resume):
            session.go(target, threads=threads, compile=compile, stage1=stage1)
        world.barrier()
    return load(folder)


def default_folder(config: RunConfig) -> Path:
    """Return ``runs/DATASET-ifIF-METHOD-PROTOCOL-sSEED``."""
    return Path("runs") / f"{config.dataset}-if{config.imbalance:g}-{config.method}-{config.protocol}-s{config.seed}"


class _Session:
    """A run folder being filled."""

    def __init__(self, config: RunConfig, data: LongTailData, folder: Path, world: World, reporter: Reporter) -> None:
        self.config = config
        self.data = data
        self.task = Task.of(data)
        self.recipe = build_recipe(config, self.task)
        self.folder = folder
        self.world = world
        self.reporter = reporter
        self.history: list[dict[str, Any]] = []
        self.best: float | None = None
        self.stage1: str | None = None
        self._saved = time.monotonic()
        self._stop = threading.Event()
        self._asked = 0
        self._current: Training

    # -- the folder ----------------------------------------------------------------------------------------------

    def open(self, resume: bool) -> bool:
        """Claim the folder; return False where the run is finished already.

        Raises:
            UsageError: The folder holds another run, or this one and ``resume`` was not asked for.
        """
        if not (self.folder / CONFIG_NAME).exists():
            if resume:
                raise UsageError(f"{self.folder} holds no run to resume", fix="leave --resume out to begin one")
            return True
        there, _ = read_config(self.folder)
        differences = self.config.differences(there)
        if differences:
            raise UsageError(
                f"{self.folder} holds a run with another configuration: {'; '.join(differences)}",
                fix="choose another --out",
            )
        if not resume:
            finished = (self.folder / "metrics.json").exists()
            raise UsageError(
                f"{self.folder} already holds this run, {'finished' if finished else 'unfinished'}",
                fix="add --resume to go on with it" if not finished else "choose another --out, or look with evaluate",
            )
        return not (self.folder / "metrics.json").exists()

    def _write_request(self, runtime: Runtime) -> None:
        if not self.world.is_main:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_config(
                self.folder,
                self.config,
                data=asdict(self.task),
                runtime=runtime.asdict(),
                processes=self.world.size,
                stage1=self.stage1,
                made_by=provenance(),
            )
        except OSError as error:
            raise LongtailError(f"the run folder {self.folder} cannot be written: {error.strerror}") from error

    # -- training ------------------------------------------------------------------------------------------------

    def go(self, device: torch.device, *, threads: str | int, compile: str, stage1: str | Path | None) -> None:
        """Train from the start or from the saved state, evaluate and write everything."""
        for stage in self.recipe.stages:
            check_batch_size(stage, len(self.data.train), self.world)
        network = build_run_network(self.config, self.task, self.recipe)
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        path = self.folder / "state.pt"
        state = load_state(path) if path.exists() else None
        if state is not None:
            runtime = Runtime(**state["runtime"])
            self.stage1 = state["stage1"]
        else:
            runtime = self._settle(network, device, threads, compile)
        with thread_count(runtime.threads), self._signals():
            training = self._current = self._training(network, runtime)
            if state is not None:
                self._restore(training, state)
            elif stage1 is not None:
                self._take_stage1(training, Path(stage1))
            if state is None:
                self._write_request(runtime)
            if runtime.compile:
                network.backbone.compile(dynamic=False)
            training.run()
            if self.world.is_main:
                self._finish(training)

    def _settle(self, network: Network, device: torch.device, threads: str | int, compile: str) -> Runtime:
        total = len(self.data.train) * self.config.budget["epochs"]
        runtime = settle(
            network,
            self.task.image_shape,
            device=device,
            precision=self.config.precision,
            threads=threads,
            compile=compile,
            total_images=total,
        )
        if self.world.size > 1:  # every process must use what the main one measured
            choice = [runtime]
            dist.broadcast_object_list(choice, src=0)
            runtime = replace(choice[0], device=str(device))
        return runtime

    def _training(self, network: Network, runtime: Runtime) -> Training:
        train_set = self.data.train
        return Training(
            self.recipe,
            network,
            train_set.images.to(runtime.device),
            train_set.targets.to(runtime.device),
            self.task.plain_transforms(),
            num_classes=self.data.num_classes,
            seed=self.config.seed,
            runtime=runtime,
            world=self.world,
            save=self._save,
            after_epoch=self._after_epoch,
            should_stop=self._should_stop,
            reporter=self.reporter,
        )

    def _take_stage1(self, training: Training, folder: Path) -> None:
        """Put a finished run in the place of the first stage."""
        there, _ = read_config(folder)
        expected = self.recipe.first_stage_of
        if expected is None:
            raise UsageError(f"{self.config.method} has no first stage that a finished run could stand in for")
        wanted = replace(self.config, method=expected, options={})
        differences = wanted.differences(replace(there, eval_every=wanted.eval_every))
        if differences:
            raise UsageError(f"{folder} is not the first stage of this run: {'; '.join(differences)}")
        state = load_state(folder / "state.pt")
        position = Position(**state["position"])
        if position.stage != 1:
            raise UsageError(f"{folder} is not finished", fix=f"longtail train --resume --out {folder}")
        training.restore({**state, "optimizer": None})
        self.history = [{**line, "stage": self.recipe.stages[0].name} for line in state["history"]]
        self.best = state["best"]
        self.stage1 = str(folder)

    def _after_epoch(self, record: dict[str, Any], is_last: bool) -> None:
        number = len(self.history) + 1
        if is_last or number % self.config.eval_every == 0:
            record["test_top1"] = self._test_top1()
            self.best = max(self.best or 0.0, record["test_top1"])
        self.history.append(record)
        if self.world.is_main:
            with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def _test_top1(self) -> float:
        logits, targets = self._test_logits(self._current)
        return 100.0 * float((logits.argmax(1) == targets).float().mean())

    def _test_logits(self, training: Training) -> tuple[torch.Tensor, torch.Tensor]:
        inference: nn.Module = self.recipe.inference
        test = self.data.test
        logits = predict_logits(
            training.network, inference, test.images, self.task.plain_transforms(), training.runtime
        )
        return logits.cpu(), test.targets

    # -- state ---------------------------------------------------------------------------------------------------

    def _save(self, training: Training, force: bool) -> None:
        if not self.world.is_main or (not force and time.monotonic() - self._saved < SAVE_SECONDS):
            return
        extra = {
            "runtime": training.runtime.asdict(),
            "stage1": self.stage1,
            "history": self.history,
            "best": self.best,
        }
        save_state(self.folder / "state.pt", {**training.state(), **extra})
        self._saved = time.monotonic()

    def _restore(self, training: Training, state: dict[str, Any]) -> None:
        training.restore(state)
        self.history = list(state["history"])
        self.best = state["best"]
        if self.world.is_main:
            lines = "".join(json.dumps(line) + "\n" for line in self.history)
            write_atomically(self.folder / "history.jsonl", lambda file: file.write(lines.encode()))

    def _should_stop(self) -> bool:
        if self.world.size == 1:
            return self._stop.is_set()
        self._asked += 1
        if self._asked % 16:
            return False
        return bool(self.world.sum(torch.tensor(float(self._stop.is_set()))))  # all processes stop at one step

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM stop the run at the next step; a second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: object) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- the result ----------------------------------------------------------------------------------------------

    def _finish(self, training: Training) -> None:
        logits, targets = self._test_logits(training)
        scores = evaluate(logits.numpy(), targets.numpy(), list(self.task.class_counts))
        tensors = {k: v.detach().cpu().contiguous() for k, v in training.network.state_dict().items()}
        save_file(tensors, self.folder / "model.safetensors")
        np.savez_compressed(self.folder / "test_logits.npz", logits=logits.numpy(), targets=targets.numpy())
        report = {
            "method": self.config.method,
            "dataset": self.config.dataset,
            "imbalance": self.config.imbalance,
            "protocol": self.config.protocol,
            "seed": self.config.seed,
            "epochs": self.config.budget["epochs"],
            **scores,
            "class_counts": list(self.task.class_counts),
            "selection": "last-epoch",
            "best_test_epoch_top1": self.best,
            "train_seconds": training.position.seconds,
            "images_per_second": training.position.images / max(training.position.seconds, 1e-9),
            "device": training.runtime.device,
            "precision": training.runtime.precision,
            "threads": training.runtime.threads,
            "compile": training.runtime.compile,
            "stage1": self.stage1,
        }
        text = json.dumps(report, indent=1)
        write_atomically(self.folder / "metrics.json", lambda file: file.write(text.encode()))
