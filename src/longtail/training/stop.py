"""Stopping a run on request: Ctrl-C, SIGTERM and the end of a time limit end it after the step under way."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from longtail.training.world import World

_ASK_EVERY = 16  # steps between questions to the other processes
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Let the runs inside the block stop, with their state on disk, when the seconds are over; None for no limit."""
    token = _deadline.set(float("inf") if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


class StopRequest:
    """Whether the run was asked to stop; with several processes, the same answer in all of them at the same step.

    Args:
        world: The processes of the run.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._deadline = _deadline.get()
        self._asked = threading.Event()
        self._steps = 0

    def __call__(self) -> bool:
        """Answer after a step. Several processes confer every few steps only: each answer is a collective."""
        if self._world.size == 1:
            return self._wanted()
        self._steps += 1
        if self._steps % _ASK_EVERY:
            return False
        return bool(self._world.sum(torch.tensor(float(self._wanted()))))

    def _wanted(self) -> bool:
        return self._asked.is_set() or time.monotonic() >= self._deadline

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as requests inside the block; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: object) -> None:
            if self._asked.is_set():
                raise KeyboardInterrupt
            self._asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
