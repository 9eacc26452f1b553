"""Runs of a grid side by side on the machines of a Ray cluster; run folders and data lie where all of them see them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longtail.benchmark.grid import Outcome
from longtail.benchmark.job import Job, Machine, work
from longtail.errors import LongtailError

_WAIT_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0


class Tasks:
    """Lanes that are Ray tasks. Ray begins a task again whose machine was lost; its run goes on from its last state.

    Args:
        machine: How to use the machines, with its runtime settled.
        address: ``local`` starts Ray here; ``auto`` or an address joins a cluster.
        jobs: Most runs at a time; where Ray starts here, the number of its workers.

    Raises:
        ImportError: Ray is not installed.
        LongtailError: The cluster cannot be reached.
    """

    def __init__(self, machine: Machine, address: str, jobs: int) -> None:
        self._ray = importlib.import_module("ray")
        self._jobs = jobs
        self._here = Path.cwd()
        threads = machine.runtime.threads if machine.runtime is not None else 1
        on_gpu = machine.runtime is not None and machine.runtime.device.startswith("cuda")
        local: dict[str, Any] = {"num_cpus": threads * jobs, "include_dashboard": False} if address == "local" else {}
        try:
            self._ray.init(address=None if address == "local" else address, log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise LongtailError(
                f"no Ray at {address!r}: {error}", fix="start one with ray start, or --ray local"
            ) from error
        gpus = int(self._ray.cluster_resources().get("GPU", 0)) if on_gpu else 0
        share = min(1.0, gpus / jobs) if gpus else 0.0
        self._remote = self._ray.remote(_task).options(num_cpus=threads, num_gpus=share, max_retries=2)
        self._running: dict[Any, Job] = {}

    def free(self) -> bool:
        """Return whether one more run can begin."""
        return len(self._running) < self._jobs

    def start(self, job: Job) -> None:
        """Begin a run, as soon as Ray has a machine for it."""
        self._running[self._remote.remote(job, str(self._here))] = job

    def wait(self) -> list[Outcome]:
        """Wait until a run ends, at most a second; return those that ended."""
        ended, _ = self._ray.wait(list(self._running), timeout=_WAIT_SECONDS)
        return [self._outcome(reference, self._running.pop(reference)) for reference in ended]

    def _outcome(self, reference: Any, job: Job) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Outcome(job.cell, "failed", reason=f"Ray: {str(error).strip().splitlines()[0]}")
        return outcome

    def stop(self) -> None:
        """Ask all runs to stop after their step under way, and wait for them."""
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_PATIENCE_SECONDS)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


def _task(job: Job, folder: str) -> Outcome:
    """Do a job in a worker of Ray, which begins in a folder of its own."""
    os.chdir(folder)
    return work(job)


def tasks(address: str, jobs: int) -> Callable[[Machine], Tasks]:
    """Return what makes lanes on a Ray cluster."""
    return lambda machine: Tasks(machine, address, jobs)
