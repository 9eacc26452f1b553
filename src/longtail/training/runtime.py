"""How a run uses the machine: device, precision, threads and compilation, probed where they are left open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from longtail.errors import LongtailError, UsageError

PRECISIONS = ("auto", "bf16", "fp32")
COMPILES = ("auto", "on", "off")
# Compiling ResNet-32 takes 25 to 35 s on two CPU cores, and gains little there. A GPU waits for the host's small
# launches, of which compiled code has fewer; how long is worth while there has not been measured.
_COMPILE_PAYS_SECONDS = {"cpu": 600, "cuda": 60}
_COMPILED_SHAPES = 64
_PROBE_BATCH = 64
_PROBE_PIXELS = 1 << 18  # of larger images fewer at once: a probe shall take seconds
_PROBE_STEPS = 3
_MARGIN = 1.15


@dataclass(frozen=True)
class Runtime:
    """Settled choices of a run; recorded, and taken over when the run is resumed.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32``, or ``bf16``: autocast with float32 losses, heads and batch-norm statistics.
        threads: CPU threads.
        compile: Whether the backbone's training step is compiled.
    """

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    compile: bool = False

    def autocast(self) -> Any:
        """Return the context in which the network runs."""
        if self.precision == "bf16":
            return torch.autocast(torch.device(self.device).type, torch.bfloat16)
        return nullcontext()

    def changed(self, threads: str | int, compile: str) -> Runtime:
        """Return a copy with the threads and the compilation that are asked for; ``auto`` leaves them.

        They change results by rounding only; the precision is a part of the request and stays.

        Raises:
            UsageError: A setting is none that `settle` knows.
        """
        check_asked(self.precision, threads, compile)
        return replace(
            self,
            threads=self.threads if threads == "auto" else int(threads),
            compile=self.compile if compile == "auto" else compile == "on",
        )

    def asdict(self) -> dict[str, Any]:
        """Return the choices as plain values."""
        return asdict(self)


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Use a number of torch threads inside the block and the former number after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is CUDA where there is one.

    ``cuda`` is the GPU of this process: under torchrun each has its own.

    Raises:
        UsageError: The device is not there.
    """
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}", fix="use cpu, cuda, cuda:N or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported", fix="use cpu, cuda, cuda:N or auto")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise UsageError(f"device {name!r} was asked for, but torch sees no CUDA device", fix="use --device cpu")
    number = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    there = torch.cuda.device_count()
    if number >= there:
        raise UsageError(f"device cuda:{number} was asked for, but torch sees {there} CUDA device(s)")
    return torch.device("cuda", number)


def settle(
    network: nn.Module,
    image_shape: tuple[int, ...],
    *,
    device: torch.device,
    precision: str = "auto",
    threads: str | int = "auto",
    compile: str = "auto",
    total_images: int = 0,
) -> Runtime:
    """Choose what is left open by timing a few steps of the network itself: a second or two.

    On a CPU, bfloat16 is two to three times faster where the processor multiplies it in hardware and slower elsewhere;
    two threads are faster on an idle machine and many times slower on a busy one; compilation may gain or lose. None
    of this can be told from names, so it is measured. On a GPU the steps only tell whether the run is long enough to
    pay for compilation.

    Args:
        network: The network, on the device.
        image_shape: (C, H, W).
        device: Where it runs.
        precision: ``auto``, ``bf16`` or ``fp32``.
        threads: ``auto`` or a number.
        compile: ``auto``, ``on`` or ``off``.
        total_images: Images that the run will train on, to see whether compilation can pay.

    Raises:
        UsageError: A setting is none of these.
    """
    check_asked(precision, threads, compile)
    if device.type == "cuda":
        return _settle_on_gpu(network, image_shape, device, precision, threads, compile, total_images)
    precisions = ("fp32", "bf16") if precision == "auto" else (precision,)
    available = torch.get_num_threads()
    counts = sorted({1, available}) if threads == "auto" else [int(threads)]
    candidates = [Runtime("cpu", p, t) for t in counts for p in precisions]
    best = candidates[0]
    seconds = 0.0
    if len(candidates) > 1 or compile == "auto":
        timed = {c: step_seconds(network, image_shape, c) for c in candidates}
        # The first candidate is the plainest; a gain within the noise of the clock does not make another one better.
        best = min(timed, key=lambda c: timed[c] * (1 if c == candidates[0] else _MARGIN))
        seconds = timed[best]
    if compile == "on":
        return replace(best, compile=True)
    if compile == "auto" and _compiling_pays(seconds, image_shape, total_images, "cpu"):
        compiled = replace(best, compile=True)
        if step_seconds(network, image_shape, compiled) < 0.95 * seconds:
            return compiled
    return best


def _settle_on_gpu(
    network: nn.Module,
    image_shape: tuple[int, ...],
    device: torch.device,
    precision: str,
    threads: str | int,
    compile: str,
    total_images: int,
) -> Runtime:
    if precision == "auto":  # an older GPU would imitate bfloat16, slowly
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    count = torch.get_num_threads() if threads == "auto" else int(threads)
    chosen = Runtime(str(device), precision, count, compile == "on")
    if compile != "auto":
        return chosen
    seconds = step_seconds(network, image_shape, chosen)
    return replace(chosen, compile=_compiling_pays(seconds, image_shape, total_images, "cuda"))


def check_asked(precision: str, threads: str | int, compile: str) -> None:
    """Raise UsageError where a choice is none of those that `settle` knows."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if compile not in COMPILES:
        raise UsageError(f"compile is {compile!r}; it must be one of {', '.join(COMPILES)}")
    if threads != "auto" and not (str(threads).isdigit() and int(threads) >= 1):
        raise UsageError(f"threads is {threads!r}; it must be auto or a number from 1 on")


def _compiling_pays(seconds: float, image_shape: tuple[int, ...], total_images: int, kind: str) -> bool:
    """Return whether a run, of which the probe's step takes so many seconds, is long enough to pay for compilation."""
    return seconds * total_images / _probe_batch(image_shape) > _COMPILE_PAYS_SECONDS[kind]


def compile_in_place(module: nn.Module) -> None:
    """Compile a module's calls. Within a process, modules of one structure and shape of input are compiled once.

    torch gives a module up, and runs it as it is, after eight shapes; a grid of runs in one process has more.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, _COMPILED_SHAPES)
    module.compile(dynamic=False)


def _probe_batch(image_shape: tuple[int, ...]) -> int:
    return max(2, min(_PROBE_BATCH, _PROBE_PIXELS // (image_shape[-2] * image_shape[-1])))


def step_seconds(network: nn.Module, image_shape: tuple[int, ...], runtime: Runtime) -> float:
    """Return the best of a few timed forward and backward passes on random images; the network is left as it was."""
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    device = torch.device(runtime.device)
    images = torch.rand(_probe_batch(image_shape), *image_shape, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    run = torch.compile(network, dynamic=False) if runtime.compile else network
    was_training = network.training
    network.train()
    times = []
    try:
        with thread_count(runtime.threads):
            for _ in range(_PROBE_STEPS + 1):
                start = time.perf_counter()
                with runtime.autocast():
                    loss = run(images).float().logsumexp(-1).mean()
                loss.backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(time.perf_counter() - start)
    except RuntimeError as error:
        raise LongtailError(f"the network does not run with {runtime}: {error}") from error
    finally:
        network.train(was_training)
        network.zero_grad(set_to_none=True)
        network.load_state_dict(kept)
    return min(times[1:])
