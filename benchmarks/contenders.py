"""What `throughput.py` sets side by side: the papers' plain loop, the bare step, and the library's trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from longtail import data as datasets
from longtail import methods
from longtail.augment import Compose, Normalize
from longtail.data import long_tail_counts
from longtail.errors import LongtailError
from longtail.networks import Network, build_network
from longtail.training.budget import Context, augmentation_for, budget_for
from longtail.training.loop import InterruptedRunError, Training
from longtail.training.progress import SilentReporter
from longtail.training.recipe import Shape
from longtail.training.runtime import Runtime
from longtail.training.world import World

CLASSES, BATCH, WARM_UP = 100, 128, 3
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def load_images(root: str | None) -> tuple[Tensor, Tensor, str]:
    """Return training images (N, 3, 32, 32), uint8, their targets (N,), and what they are."""
    try:
        train = datasets.load("cifar100", imbalance=100, root=root).train
        return train.images, train.targets, "CIFAR-100-LT"
    except LongtailError:
        counts = torch.tensor(long_tail_counts(500, CLASSES, 100.0, "exp"))
        targets = torch.arange(CLASSES).repeat_interleave(counts)
        return torch.randint(256, (len(targets), 3, 32, 32), dtype=torch.uint8), targets, "random images"


def new_network(device: torch.device) -> Network:
    """Return a ResNet-32 with a linear head; the same initial weights every time."""
    torch.manual_seed(0)
    return build_network("resnet32", CLASSES).to(device)


def wait(device: torch.device) -> None:
    """Let queued work end, where the device works asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PilImages(Dataset[tuple[Tensor, int]]):
    """One image at a time from PIL through crop, flip, conversion and normalisation, as the papers' code does."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = targets.tolist()
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.std = torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), border=4, fill=0)
        left, top = torch.randint(9, (2,)).tolist()
        image = image.crop((left, top, left + 32, top + 32))
        if torch.rand(1).item() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return pixels.sub_(self.mean).div_(self.std), self.targets[index]


class PlainLoop:
    """The loop of the papers' code: float32, contiguous, metrics read back every step."""

    def __init__(self, images: Tensor, targets: Tensor, device: torch.device, batch: int, workers: int) -> None:
        self.device = device
        self.batch = batch
        self.network = new_network(device).train()
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
        loader = DataLoader(
            PilImages(images, targets),
            batch_size=batch,
            shuffle=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            drop_last=True,
        )
        self.stream = endless(loader)
        self.meters = dict.fromkeys(("loss", "top1", "top5"), 0.0)

    def step(self) -> None:
        """Train one batch."""
        images, targets = next(self.stream)
        images = images.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        logits = self.network(images)
        loss = self.criterion(logits, targets)
        hits = logits.topk(5, 1).indices.t().eq(targets.view(1, -1))
        for k in (1, 5):
            self.meters[f"top{k}"] += hits[:k].reshape(-1).float().sum().mul(100 / len(targets)).item()
        self.meters["loss"] += loss.item()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def images_per_second(self, steps: int) -> float:
        """Time some steps after a short warm-up."""
        return time_steps(self.step, steps, self.batch, self.device)


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Repeat a loader for ever."""
    while True:
        yield from loader


class BareStep:
    """Forward, backward and optimiser step on one batch that is already there: the limit for any loop around them."""

    def __init__(self, runtime: Runtime, batch: int) -> None:
        self.runtime = runtime
        self.device = torch.device(runtime.device)
        self.batch = batch
        self.network = new_network(self.device).to(memory_format=torch.channels_last).train()
        if runtime.compile:
            self.network.backbone.compile(dynamic=False)
        images = torch.randn(batch, 3, 32, 32, device=self.device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.targets = torch.randint(CLASSES, (batch,), device=self.device)
        fused = self.device.type == "cuda" or None
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=fused
        )

    def step(self) -> None:
        """Train the batch once more."""
        with self.runtime.autocast():
            loss = F.cross_entropy(self.network(self.images).float(), self.targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def images_per_second(self, steps: int) -> float:
        """Time some steps after a short warm-up."""
        return time_steps(self.step, steps, self.batch, self.device)


class StopWatch(SilentReporter):
    """Reads the clock in the trainer after the warm-up steps and after the last timed one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start(0)

    def start(self, steps: int) -> None:
        """Begin anew: ``steps`` steps are timed after the warm-up."""
        self.left, self.steps, self.images, self.seconds = WARM_UP + steps, steps, 0, 0.0

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Hear of a step that the trainer queued."""
        self.left -= 1
        if self.left < self.steps:
            self.images += images
        if self.left in (self.steps, 0):
            wait(self.device)
            self.seconds = time.perf_counter() - self.seconds


def make_training(
    images: Tensor, targets: Tensor, runtime: Runtime, batch: int, **hooks: Callable[..., Any] | SilentReporter
) -> Training:
    """Return the real training loop of plain cross-entropy with hooks that do nothing but those given."""
    device = torch.device(runtime.device)
    budget = replace(budget_for("cifar100", "published"), batch_size=batch, lr=0.01)
    plain = Compose((Normalize(MEAN, STD),))
    context = Context(
        tuple(torch.bincount(targets, minlength=CLASSES).tolist()),
        "published",
        budget,
        augmentation_for("cifar100", MEAN, STD),
        plain,
    )
    network = new_network(device).to(memory_format=torch.channels_last)
    silent: dict[str, Any] = {
        "save": lambda training, force: None,
        "after_epoch": lambda record, last: None,
        "should_stop": lambda: False,
        "reporter": SilentReporter(),
    }
    return Training(
        methods.build("ce", context),
        network,
        images.to(device),
        targets.to(device),
        plain,
        shape=Shape("resnet32", CLASSES, 3),
        seed=0,
        runtime=runtime,
        world=World(),
        **{**silent, **hooks},
    )


class Trainer:
    """The library's own loop, stopped after each repeat and resumed for the next one."""

    def __init__(self, images: Tensor, targets: Tensor, runtime: Runtime, batch: int) -> None:
        self.watch = StopWatch(torch.device(runtime.device))
        self.training = make_training(
            images, targets, runtime, batch, reporter=self.watch, should_stop=lambda: self.watch.left <= 0
        )

    def images_per_second(self, steps: int) -> float:
        """Time some steps after a short warm-up."""
        self.watch.start(steps)
        try:
            self.training.run()
        except InterruptedRunError:
            return self.watch.images / self.watch.seconds
        raise LongtailError("the training ended before the measurement did", fix="use fewer --steps or --repeats")


def time_steps(step: Callable[[], None], steps: int, batch: int, device: torch.device) -> float:
    """Return images per second of ``steps`` calls after the warm-up ones."""
    for _ in range(WARM_UP):
        step()
    wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return steps * batch / (time.perf_counter() - start)
