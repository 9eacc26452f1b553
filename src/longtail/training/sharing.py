"""Which stages two recipes have in common, found by what the stages are and not by what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from longtail.networks import Network
from longtail.training.recipe import Recipe, Shape, Stage

_MACHINERY = frozenset(vars(nn.Module()))
"""What torch keeps in each module beside its content: hooks, and the tables of parameters, buffers and modules."""


def shared_stages(ours: Recipe, theirs: Recipe, backbone: str) -> int:
    """Return how many stages, from the first on, are the same, so that a run of one has trained them for the other.

    Args:
        ours: A recipe.
        theirs: Another.
        backbone: Name of the backbone of both, since stages train the same only in the same network.
    """
    count = 0
    for mine, other in zip(ours.stages, theirs.stages, strict=False):
        if stage_difference(mine, other):
            break
        count += 1
    # Last, since it may have to build both.
    return count if count and same_network(ours, theirs, backbone) else 0


def same_network(ours: Recipe, theirs: Recipe, backbone: str) -> bool:
    """Return whether two recipes build the same network, weights included."""
    if not difference(ours.network, theirs.network):
        return True
    return not difference(*(_built(recipe, Shape(backbone, 10, 3)) for recipe in (ours, theirs)))


def _built(recipe: Recipe, shape: Shape) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return recipe.network(*shape)


def stage_difference(ours: Stage, theirs: Stage) -> str:
    """Return where two stages differ, such as ``objective.criterion.s``; empty where only their names do."""
    named = ((f.name, getattr(ours, f.name), getattr(theirs, f.name)) for f in fields(Stage) if f.name != "name")
    return _first(named)


def difference(ours: Any, theirs: Any) -> str:
    """Return where two values differ; empty for none, ``.`` for the values themselves.

    Strict: two objects that do the same in different ways count as different. Modules are compared by all that they
    hold, numbers outside of buffers too; functions by their code and what they close over.
    """
    if ours is theirs:
        return ""
    if type(ours) is not type(theirs):
        return "."
    if isinstance(ours, Tensor):
        alike = ours.dtype == theirs.dtype and ours.shape == theirs.shape
        return "" if alike and torch.equal(ours.cpu(), theirs.cpu()) else "."
    if isinstance(ours, FunctionType):
        if ours.__code__ is not theirs.__code__:
            return "."
        return "" if not difference(_around(ours), _around(theirs)) else "."
    if isinstance(ours, Mapping):
        if list(ours) != list(theirs):
            return "."
        return _first((str(key), value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, Sequence) and not isinstance(ours, str | bytes):
        if len(ours) != len(theirs):
            return "."
        return _first((str(k), a, b) for k, (a, b) in enumerate(zip(ours, theirs, strict=True)))
    parts, others = _parts(ours), _parts(theirs)
    if parts is None or others is None:
        return "" if bool(ours == theirs) else "."
    return difference(parts, others)


def _parts(value: Any) -> Mapping[str, Any] | None:
    """Return what an object is made of, by name; None for one that is a value itself."""
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, nn.Module):
        own = {name: part for name, part in vars(value).items() if name not in _MACHINERY}
        return {**value._parameters, **value._buffers, **value._modules, **own}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def _around(function: FunctionType) -> list[Any]:
    """Return what a function takes from its surroundings: defaults and what it closes over."""
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__defaults__, function.__kwdefaults__, closed]


def _first(pairs: Iterable[tuple[str, Any, Any]]) -> str:
    for name, ours, theirs in pairs:
        found = difference(ours, theirs)
        if found:
            return name if found == "." else f"{name}.{found}"
    return ""
