"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class World:
    """This process among those of the run.

    Attributes:
        rank: 0-based number of this process.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the person."""
        return self.rank == 0

    def share(self, items: Tensor) -> Tensor:
        """Return this process's part of a global batch: every size-th item from rank on."""
        return items if self.size == 1 else items[self.rank :: self.size]

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Write the main process's values into the tensors of all."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def processes() -> int:
    """Return the number of processes of the run under way, for objectives, which know no `World`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the sums over the processes of the run; what is given where there is one."""
    if processes() == 1:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return tuple(part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True))


def gather_over_processes(items: Tensor) -> Tensor:
    """Return the whole batch of which each process has its `World.share`, in order; without a graph.

    Args:
        items: This process's part, (b, ...).

    Returns:
        (B, ...), the same in all processes.
    """
    size = processes()
    if size == 1:
        return items
    total = torch.tensor(len(items))  # in host memory, see `joined`
    dist.all_reduce(total)
    longest = -(-int(total) // size)
    padded = torch.cat([items.detach(), items.new_zeros(longest - len(items), *items.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    return torch.stack(parts, dim=1).flatten(0, 1)[: int(total)]


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, until the program ends; a plain process is a world of one.

    Processes that part after a run do not always find each other again for the next one.

    Tensors on CUDA travel by nccl. Those in host memory, such as the answer whether to stop, travel by gloo in any
    case: nccl cannot carry them, and so no step waits for the device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_part)
    yield World(dist.get_rank(), dist.get_world_size())


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
