"""Where an epoch's time goes, and how often a step waits for the device.

Trains ResNet-32 on CIFAR-100-LT (imbalance 100) with the real loop and prints

- the time of an epoch inside the network step (forward and loss, backward, optimiser) and outside it (index streams,
  gathering, augmentation, the loop itself), timed without the profiler, which would slow small operations most;
- from `torch.profiler`: the operations that take the most time, and host synchronisations per step, which must be 0.

Run it on an idle machine: `make profile`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile

from contenders import BATCH, load_images, make_training, new_network, wait
from longtail.training.loader import StageLoader
from longtail.training.loop import InterruptedRunError, Training
from longtail.training.progress import SilentReporter
from longtail.training.runtime import Runtime, pick_device, settle, thread_count
from longtail.types import Batch, Progress

NETWORK_STEP = ("forward and loss", "backward", "optimiser")
WAITS = ("aten::_local_scalar_dense", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


class Clock:
    """Adds up the seconds of named sections; on a GPU it waits for the section's work to end."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._began = 0.0

    def begin(self, *_: object) -> None:
        """Begin a section."""
        wait(self.device)
        self._began = time.perf_counter()

    def end(self, name: str) -> None:
        """End the section that was begun last."""
        wait(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self._began

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its calls timed."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.begin()
            result = function(*arguments, **keywords)
            self.end(name)
            return result

        return call

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time loader, backward and optimiser of everything that trains inside the block."""
        hooks = [
            register_optimizer_step_pre_hook(self.begin),
            register_optimizer_step_post_hook(lambda *_: self.end("optimiser")),
        ]
        batches = mock.patch.object(StageLoader, "batches", self.timed("loader and augmentation", StageLoader.batches))
        plan = mock.patch.object(StageLoader, "plan", self.timed("index streams", StageLoader.plan))
        backward = mock.patch.object(Tensor, "backward", self.timed("backward", Tensor.backward))
        with batches, plan, backward:
            yield
        for hook in hooks:
            hook.remove()


class TimedObjective(nn.Module):
    """An objective whose forward pass, network included, is timed."""

    def __init__(self, objective: nn.Module, clock: Clock) -> None:
        super().__init__()
        self.objective = objective
        self.clock = clock

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the objective's loss."""
        self.clock.begin()
        loss: Tensor = self.objective(network, batches, progress)
        self.clock.end("forward and loss")
        return loss


class EndedError(Exception):
    """The epoch that was asked for is over."""


def time_epoch(images: Tensor, targets: Tensor, runtime: Runtime, batch: int) -> dict[str, Any]:
    """Train two epochs and return the sections' seconds of the second one."""
    clock = Clock(torch.device(runtime.device))
    epochs: list[tuple[float, dict[str, float]]] = []

    def after_epoch(record: dict[str, Any], last: bool) -> None:
        epochs.append((record["seconds"], dict(clock.seconds)))
        clock.seconds.clear()
        if len(epochs) == 2:
            raise EndedError

    training = make_training(images, targets, runtime, batch, after_epoch=after_epoch)
    stage = training.recipe.stages[0]
    assert stage.objective is not None
    timed = replace(stage, objective=TimedObjective(stage.objective, clock))
    training.recipe = training.recipe.with_stages(timed)
    with clock.attached(), suppress(EndedError):
        training.run()
    seconds, sections = epochs[1]
    # The index streams are drawn before the loop's own clock starts.
    total = seconds + sections["index streams"]
    sections["the loop itself"] = total - sum(sections.values())
    inside = sum(sections[name] for name in NETWORK_STEP)
    return {"seconds": total, "sections": sections, "outside_share": 1 - inside / total}


class ProfiledSteps(SilentReporter):
    """Profiles some steps in the middle of an epoch."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.first, self.last = 2, 2 + steps
        cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *cuda])
        self.done = 0

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Hear of a step."""
        self.done += 1
        if self.done == self.first:
            self.profile.start()
        elif self.done == self.last:
            self.profile.stop()

    @property
    def over(self) -> bool:
        """Whether all steps were profiled."""
        return self.done >= self.last


def profile_steps(images: Tensor, targets: Tensor, runtime: Runtime, batch: int, steps: int) -> dict[str, Any]:
    """Profile steps of one epoch: host synchronisations per step and the table of operations."""
    inside_epoch = len(targets) // batch - 2
    if steps > inside_epoch:
        raise SystemExit(f"--steps is {steps}; an epoch has only {inside_epoch} full steps to profile")
    reporter = ProfiledSteps(steps, torch.device(runtime.device))
    training: Training = make_training(
        images, targets, runtime, batch, reporter=reporter, should_stop=lambda: reporter.over
    )
    with suppress(InterruptedRunError):
        training.run()
    averages = reporter.profile.key_averages()
    counts = {event.key: event.count for event in averages if event.key in WAITS}
    if runtime.device.startswith("cuda"):
        # Stopping the profiler waits once itself.
        counts = {key: max(0, count - 1) if key.startswith("cuda") else count for key, count in counts.items()}
    sort = "self_cpu_time_total" if not runtime.device.startswith("cuda") else "self_device_time_total"
    table = averages.table(sort_by=sort, row_limit=12, max_name_column_width=40)
    return {"steps": steps, "waits_per_step": sum(counts.values()) / steps, "waits": counts, "table": table}


def show(timed: dict[str, Any], profiled: dict[str, Any]) -> None:
    """Print both parts."""
    print(profiled["table"])
    print(f"one epoch: {timed['seconds']:.2f} s")
    for name, seconds in sorted(timed["sections"].items(), key=lambda item: -item[1]):
        place = "network step" if name in NETWORK_STEP else "outside"
        print(f"  {name:26}{seconds:9.3f} s{seconds / timed['seconds']:8.1%}  {place}")
    print(f"outside the network step: {timed['outside_share']:.1%} of the time")
    print(
        f"host synchronisations per step, within the epoch: {profiled['waits_per_step']:g}  {profiled['waits'] or ''}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Profile and print; 1 where a step waits for the device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=40, help="steps under torch.profiler (default 40)")
    parser.add_argument("--threads", default="auto", help="CPU threads (default auto: measured)")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="images per step (default 128)")
    parser.add_argument("--images", type=int, help="images of the epoch (default all 10,847)")
    parser.add_argument("--data-root", help="folder that holds CIFAR-100 (default LONGTAIL_DATA, then .data)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    asked = parser.parse_args(arguments)

    device = pick_device(asked.device)
    probed = new_network(device).to(memory_format=torch.channels_last)
    runtime = settle(
        probed, (3, 32, 32), device=device, precision=asked.precision, threads=asked.threads, compile="off"
    )
    images, targets, _ = load_images(asked.data_root)
    images, targets = images[: asked.images], targets[: asked.images]
    with thread_count(runtime.threads):
        timed = time_epoch(images, targets, runtime, asked.batch_size)
        profiled = profile_steps(images, targets, runtime, asked.batch_size, asked.steps)
    if asked.json:
        kept = {key: value for key, value in profiled.items() if key != "table"}
        print(json.dumps({"runtime": runtime.asdict(), "epoch": timed, "profile": kept}, indent=1))
    else:
        show(timed, profiled)
    return int(profiled["waits_per_step"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
