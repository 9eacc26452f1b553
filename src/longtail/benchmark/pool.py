"""Runs of a grid side by side on one machine: a few processes that do one run after the other."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from longtail.benchmark.grid import Outcome
from longtail.benchmark.job import Job, Machine, work

_PATIENCE_SECONDS = 60.0  # for runs that were asked to stop
_WAIT_SECONDS = 1.0


def threads_of_each(jobs: int) -> int:
    """Return how many threads each of some processes may use without more threads than the machine gives."""
    return max(1, torch.get_num_threads() // jobs)


def devices(name: str, jobs: int) -> list[str]:
    """Return the device of each process: several GPUs take turns, and each takes several processes."""
    cuda = torch.cuda.is_available() and name in ("auto", "cuda")
    number = torch.cuda.device_count() if cuda else 1
    return [f"cuda:{k % number}" if cuda else name for k in range(jobs)]


class Processes:
    """Lanes on this machine. A process that dies takes one run with it, which fails; the others go on.

    Processes begin afresh and do not fork, since torch and CUDA do not survive a fork. When this process dies,
    however that comes, they stop after their step under way.

    Args:
        machine: How to use the machine, with its runtime settled; threads are those of each process.
        jobs: Number of processes.
    """

    def __init__(self, machine: Machine, jobs: int) -> None:
        self._lanes = [_Lane(device) for device in devices(machine.device, jobs)]

    def free(self) -> bool:
        """Return whether one more run can begin."""
        return any(lane.job is None for lane in self._lanes)

    def start(self, job: Job) -> None:
        """Begin a run."""
        next(lane for lane in self._lanes if lane.job is None).start(job)

    def wait(self) -> list[Outcome]:
        """Wait until a run ends, at most a second; return those that ended."""
        busy = [lane for lane in self._lanes if lane.job is not None]
        ready = set(connection.wait([thing for lane in busy for thing in lane.signs()], timeout=_WAIT_SECONDS))
        return [lane.outcome() for lane in busy if ready.intersection(lane.signs())]

    def stop(self) -> None:
        """Ask all runs to stop after their step under way, and wait for them."""
        told = [lane for lane in self._lanes if lane.tell_to_stop()]
        until = time.monotonic() + _PATIENCE_SECONDS
        for lane in told:
            connection.wait(lane.signs(), timeout=max(until - time.monotonic(), 0))

    def close(self) -> None:
        """End the processes."""
        for lane in self._lanes:
            lane.hang_up()
        for lane in self._lanes:
            lane.end()


class _Lane:
    """One process, made when it is first needed and again when it has died."""

    def __init__(self, device: str) -> None:
        self.job: Job | None = None
        self._device = device
        self._process: BaseProcess | None = None
        self._ours: Connection[Any, Any]
        self._lifeline: Connection[Any, Any]

    def start(self, job: Job) -> None:
        runtime = job.machine.runtime
        if runtime is not None and self._device.startswith("cuda:"):
            job = replace(job, machine=replace(job.machine, runtime=replace(runtime, device=self._device)))
        if self._process is None or not self._process.is_alive():
            self._make()
        self.job = job
        self._ours.send(job)

    def _make(self) -> None:
        context = get_context("spawn")
        self._ours, theirs = context.Pipe()
        # Nothing is ever sent through the lifeline: its end, when this process dies, is the message.
        end, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(theirs, end), daemon=True)
        self._process.start()
        theirs.close()
        end.close()

    def signs(self) -> list[Any]:
        assert self._process is not None
        return [self._ours, self._process.sentinel]

    def outcome(self) -> Outcome:
        job, self.job = self.job, None
        assert job is not None
        assert self._process is not None
        try:
            if self._ours.poll():
                outcome: Outcome = self._ours.recv()
                return outcome
        except (EOFError, OSError):
            pass
        self._process.join(_PATIENCE_SECONDS)
        return Outcome(job.cell, "failed", reason=_end_of(self._process.exitcode))

    def tell_to_stop(self) -> bool:
        """Ask the run under way to stop; return whether there is one."""
        if self._process is None or self.job is None or not self._process.is_alive():
            return False
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGTERM)
        return True

    def hang_up(self) -> None:
        """Cut the lines to the process, which ends it after its step under way."""
        if self._process is not None:
            self._lifeline.close()
            self._ours.close()

    def end(self) -> None:
        """Wait for the process to end, and make it."""
        if self._process is None:
            return
        self._process.join(_PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()


def _end_of(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"its process ended with status {code}"


def _serve(jobs: Connection[Any, Any], lifeline: Connection[Any, Any]) -> None:
    """Do jobs until the other side hangs up. Ctrl-C is for the other side to hear: it asks each run to stop, once."""
    os.setpgrp()
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    while True:
        try:
            job: Job = jobs.recv()
            jobs.send(work(job))
        except (EOFError, OSError):
            return


def _end_with(lifeline: Connection[Any, Any]) -> None:
    """Stop this process, a run under way after its step, when the lifeline is cut."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


def processes(jobs: int) -> Callable[[Machine], Processes]:
    """Return what makes lanes of some processes."""
    return lambda machine: Processes(machine, jobs)
