"""Where a run is, and who hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass
class Position:
    """Where a run is.

    Attributes:
        stage: 0-based number of the stage.
        epoch: 0-based epoch within the stage: the next to train, or the one under way.
        step: Steps of that epoch that are done.
        entered: Whether the stage's head and optimiser are in place.
        loss_sum: Sum of the losses of the epoch's images so far.
        epoch_seconds: Training time of the epoch so far.
        seconds: Training time of all finished epochs, evaluation excluded.
        images: Images trained on in finished epochs.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    entered: bool = False
    loss_sum: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    images: int = 0


class Reporter(Protocol):
    """Hears what the loop does; the command line draws it."""

    def stage(self, name: str, number: int, stages: int, epochs: int) -> None:
        """Hear that a stage begins."""

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Hear that a step was queued; ``images`` is the global batch."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Hear that an epoch ended, with its line of the history."""


class SilentReporter:
    """Says nothing."""

    def stage(self, name: str, number: int, stages: int, epochs: int) -> None:
        """Ignore the stage."""

    def step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Ignore the step."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Ignore the epoch."""
