"""Objective and network as one module: what a step calls, in one process or several."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from longtail.training.world import World
from longtail.types import Batch, Progress

# Within a stage batch-norm statistics stay per process; newer torch has another name for it.
_NEW_NAME, _OLD_NAME = "forward_sync_buffers", "broadcast_buffers"
_BUFFERS_STAY: dict[str, Any] = {
    _NEW_NAME if _NEW_NAME in inspect.signature(DistributedDataParallel).parameters else _OLD_NAME: False
}


class _Step(nn.Module):
    """Objective and network as one module, so that DistributedDataParallel averages the gradients of both."""

    def __init__(self, objective: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        self.network = network

    def forward(self, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        return self.objective(self.network, batches, progress)  # type: ignore[no-any-return]


def step_module(objective: nn.Module, network: nn.Module, world: World) -> nn.Module:
    """Return a module called with (batches, progress) that returns the objective's scalar on a network.

    With several processes, its backward pass leaves the mean of their gradients in all of them.

    Args:
        objective: The stage's objective, on the device.
        network: The network, or its head on stored features.
        world: The processes of the run.
    """
    step: nn.Module = _Step(objective, network)
    return DistributedDataParallel(step, **_BUFFERS_STAY) if world.size > 1 else step
