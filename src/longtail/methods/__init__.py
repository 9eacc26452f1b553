"""Published methods and modifiers by name: the one table, and how a name such as ``ldam+drw`` becomes a recipe.

A method is one file here: a function from `Context` to `Recipe`, and its card. A modifier is a function from recipe to
recipe. Adding one means adding its file and its row below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longtail.errors import UsageError, unknown_name
from longtail.methods import (
    bsce,
    cdt,
    ce,
    class_balanced,
    crt,
    deferred,
    focal,
    la,
    ldam,
    lws,
    mixup,
    ncm,
    resampling,
    seql,
    tau_norm,
    vs,
)
from longtail.methods.card import Card
from longtail.methods.options import Option, assign, options_of
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

__all__ = ["METHODS", "MODIFIERS", "Card", "Entry", "Option", "build", "card", "modifiers", "names", "options", "parse"]


@dataclass(frozen=True)
class Entry:
    """A row of the table: the function that makes or changes a recipe, and its card."""

    function: Callable[..., Recipe]
    card: Card


METHODS: Mapping[str, Entry] = {
    "ce": Entry(ce.ce, ce.CARD),
    "focal": Entry(focal.focal, focal.CARD),
    "cb-ce": Entry(class_balanced.cb_ce, class_balanced.CE_CARD),
    "cb-focal": Entry(class_balanced.cb_focal, class_balanced.FOCAL_CARD),
    "cb-sampling": Entry(resampling.cb_sampling, resampling.CLASS_BALANCED_CARD),
    "sqrt-sampling": Entry(resampling.sqrt_sampling, resampling.SQUARE_ROOT_CARD),
    "progressive-sampling": Entry(resampling.progressive_sampling, resampling.PROGRESSIVE_CARD),
    "ldam": Entry(ldam.ldam, ldam.CARD),
    "seql": Entry(seql.seql, seql.CARD),
    "bsce": Entry(bsce.bsce, bsce.CARD),
    "la": Entry(la.la, la.CARD),
    "cdt": Entry(cdt.cdt, cdt.CARD),
    "vs": Entry(vs.vs, vs.CARD),
    "crt": Entry(crt.crt, crt.CARD),
    "lws": Entry(lws.lws, lws.CARD),
    "tau-norm": Entry(tau_norm.tau_norm, tau_norm.CARD),
    "ncm": Entry(ncm.ncm, ncm.CARD),
}

# In the order in which they are applied, whatever order a person types.
MODIFIERS: Mapping[str, Entry] = {
    "drw": Entry(deferred.drw, deferred.DRW_CARD),
    "drs": Entry(deferred.drs, deferred.DRS_CARD),
    "mixup": Entry(mixup.mixup, mixup.CARD),
    "post-hoc-la": Entry(la.post_hoc_la, la.POST_HOC_CARD),
}


def names() -> list[str]:
    """Return the names of all methods."""
    return list(METHODS)


def modifiers() -> list[str]:
    """Return the names of all modifiers."""
    return list(MODIFIERS)


def parse(name: str) -> tuple[str, ...]:
    """Split ``method+modifier+...`` into its parts, modifiers in the order in which they apply.

    Raises:
        UsageError: A part is unknown (with the nearest names) or given twice.
    """
    method, *mods = name.split("+")
    if method not in METHODS:
        if method in MODIFIERS:
            raise UsageError(f"{method!r} is a modifier; it needs a method before it", fix=f"for example ce+{method}")
        raise unknown_name("method", method, METHODS)
    for mod in mods:
        if mod in METHODS:
            raise UsageError(f"{mod!r} is a method, not a modifier; a run has one method", fix=f"use {method} or {mod}")
        if mod not in MODIFIERS:
            raise unknown_name("modifier", mod, MODIFIERS)
        if mods.count(mod) > 1:
            raise UsageError(f"modifier {mod!r} is given twice in {name!r}")
    return (method, *(mod for mod in MODIFIERS if mod in mods))


def canonical(name: str) -> str:
    """Return the name with its modifiers in the order in which they apply."""
    return "+".join(parse(name))


def card(name: str) -> Card:
    """Return the card of a method or modifier.

    Raises:
        UsageError: There is none of that name.
    """
    entries = {**METHODS, **MODIFIERS}
    if name not in entries:
        raise unknown_name("method", name, entries)
    return entries[name].card


def part_options(part: str) -> dict[str, Option]:
    """Return the options of one method or modifier, by name."""
    return options_of(part, {**METHODS, **MODIFIERS}[part].function)


def options(name: str) -> dict[str, Option]:
    """Return the options of every part of a name, by ``part.name``."""
    return {f"{part}.{option.name}": option for part in parse(name) for option in part_options(part).values()}


def build(name: str, context: Context, given: Mapping[str, Any] | None = None) -> Recipe:
    """Build the recipe of ``method+modifier+...``.

    Args:
        name: The name.
        context: Class counts, protocol and budget.
        given: Options by name, see `longtail.methods.options.assign`.

    Raises:
        UsageError: A name or option is unknown, or the parts do not fit together.
    """
    parts = parse(name)
    arguments = assign([part_options(part) for part in parts], given or {})
    recipe = METHODS[parts[0]].function(context, **arguments[0])
    for mod, keywords in zip(parts[1:], arguments[1:], strict=True):
        recipe = MODIFIERS[mod].function(recipe, context, **keywords)
    return recipe
