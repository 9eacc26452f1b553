"""A GPU that is not there: real arithmetic on the CPU, and a record of what would lie where and of what would wait.

Tensors that a program makes on, or moves to, a CUDA device stay in host memory, with a mark on their storage. What they
say of their device follows the mark. Every operation is checked as CUDA does it: tensors of two places do not mix, but
for single numbers and indices, and a generator draws on its own device only. Host synchronisations are counted while
`PretendedGPU.watched` is open. It says nothing of kernels, precision, streams or speed.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
aten = torch.ops.aten
_COPIES = {aten.copy_.default, aten._to_copy.default}
_TAKE_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_WAIT = {
    aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default,
    aten.masked_select.default, aten._unique2.default, aten.unique_dim.default, aten.repeat_interleave.Tensor,
    aten.bincount.default,
}  # fmt: skip
_DEVICE, _IS_CUDA = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__


class WrongPlaceError(Exception):
    """Tensors of two devices met, or a generator drew on another device than its own."""


class PretendedGPU:
    """What is on the device, and what waited for it: ``waits`` counts (operation, line of this library)."""

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self._marks: dict[int, StorageWeakRef] = {}  # they keep an address from being used again
        self._watching = False

    def has(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._marks

    def place(self, tensor: Tensor, *, there: bool) -> Tensor:
        storage = tensor.untyped_storage()
        if there:
            self._marks[storage._cdata] = StorageWeakRef(storage)
        else:
            self._marks.pop(storage._cdata, None)
        return tensor

    def wait(self, what: str) -> None:
        if self._watching:
            ours = [frame for frame in traceback.extract_stack() if "/longtail/" in frame.filename]
            place = f"{ours[-1].filename.rpartition('/longtail/')[2]}:{ours[-1].lineno}" if ours else "?"
            self.waits[what, place] += 1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count what waits for the device inside the block."""
        before, self._watching = self._watching, True
        try:
            yield
        finally:
            self._watching = before

    @contextmanager
    def pretended(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGPU]:
        """Let torch have one CUDA device inside the block."""
        with monkeypatch.context() as patch, _Operations(self), _Functions(self):
            patch.setattr(torch, "Generator", _Generator)
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: 1)
            patch.setattr(torch.cuda, "get_device_name", lambda device=None: "a pretended GPU")
            patch.setattr(torch.cuda, "synchronize", lambda device=None: None)
            patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1 << 40, 1 << 40))
            yield self


class _Generator(torch.Generator):
    """A generator of the CPU that says where it would be."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, CPU)
        made.there = torch.device(device).type == "cuda"
        return made

    @property
    def device(self) -> torch.device:
        return CUDA if self.there else CPU


class _Operations(TorchDispatchMode):
    """Checks every operation, those of the backward pass too, and marks what it makes."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self.gpu, kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [gpu.has(tensor) for tensor in inputs]
        mixed = any(there) and any(not on and tensor.ndim for on, tensor in zip(there, inputs, strict=True))
        if mixed and func in _TAKE_INDICES and gpu.has(args[0]):
            gpu.wait("indices from the host")
        elif mixed and func not in _COPIES:
            shapes = [(tuple(tensor.shape), "cuda" if on else "cpu") for on, tensor in zip(there, inputs, strict=True)]
            raise WrongPlaceError(f"{func}: {shapes}")
        if any(there) and (func in _WAIT or _looks_for_true(func, args) or (mixed and func is aten.copy_.default)):
            gpu.wait(str(func))
        result = func(*args, **kwargs)
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in known:
                gpu.place(made, there=any(there))
        return result


def _looks_for_true(func: Any, args: Any) -> bool:
    """Whether an index is a mask, whose length only the device knows."""
    masks = (index for index in args[1] if index is not None) if func is aten.index.Tensor else ()
    return any(mask.dtype is torch.bool for mask in masks)


class _Functions(TorchFunctionMode):
    """Answers for devices: where a tensor is, and what is made or moved where."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self.gpu, dict(kwargs or {})
        if func == _DEVICE:
            return CUDA if gpu.has(args[0]) else CPU
        if func == _IS_CUDA:
            return gpu.has(args[0])
        if func is torch.Tensor.to:
            return self._to(*args, **kwargs)
        if func in (torch.Tensor.cpu, torch.Tensor.tolist) and gpu.has(args[0]):
            gpu.wait(func.__name__)
            return gpu.place(args[0].clone(), there=False) if func is torch.Tensor.cpu else func(*args)
        if func is torch.Tensor.numpy and gpu.has(args[0]):
            raise WrongPlaceError("numpy() of a tensor on the device")
        if func is torch.Tensor.pin_memory:
            return args[0]
        kwargs.pop("pin_memory", None)
        named, generator = kwargs.get("device"), kwargs.get("generator")
        if named is not None:
            kwargs["device"] = CPU
        made = func(*args, **kwargs)
        if named is not None and isinstance(made, Tensor):
            there = torch.device(named).type == "cuda"
            if there and func in (torch.tensor, torch.as_tensor, torch.asarray):
                gpu.wait(func.__name__)
            gpu.place(made, there=there)
        if generator is not None and isinstance(made, Tensor) and (generator.device == CUDA) != gpu.has(made):
            raise WrongPlaceError(f"{func.__name__} on another device than its generator's")
        return made

    def _to(self, tensor: Tensor, *args: Any, non_blocking: bool = False, device: Any = None, **kwargs: Any) -> Tensor:
        rest = [given for given in args if given is not None]
        if rest and isinstance(rest[0], Tensor):
            device, rest[0] = CUDA if self.gpu.has(rest[0]) else CPU, rest[0].dtype
        elif rest and isinstance(rest[0], str | torch.device):
            device = rest.pop(0)
        if rest and isinstance(rest[-1], bool):
            non_blocking = rest.pop()
        was = self.gpu.has(tensor)
        there = was if device is None else torch.device(device).type == "cuda"
        result = tensor.to(*rest, **kwargs) if rest or kwargs else tensor
        if there != was:
            if not non_blocking:
                self.gpu.wait("to " + ("cuda" if there else "cpu"))
            if result.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
                result = result.clone()
        return self.gpu.place(result, there=there)
