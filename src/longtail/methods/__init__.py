"""Published methods and modifiers by name: the one table, and how a name such as ``ldam+drw`` becomes a recipe.

A method is one file here: a function from `Context` to `Recipe`, and its card. A modifier is a function from recipe to
recipe. Adding one means adding its file and its row below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from longtail.errors import UsageError, unknown_name
from longtail.methods import (
    ace,
    autoaug,
    bbn,
    bsce,
    cam,
    cb_finetune,
    cdt,
    ce,
    class_balanced,
    cmo,
    crt,
    cutmix,
    da_meta,
    deferred,
    dev,
    dive,
    focal,
    fsa,
    gcl,
    h2t,
    independent_experts,
    l2rw,
    la,
    ldam,
    lfme,
    lws,
    m2m,
    mbj,
    meta_weight_net,
    mislas,
    mixup,
    ncm,
    oltr,
    randaug,
    remix,
    resampling,
    reslt,
    reweighting,
    ride,
    ride_assignment,
    sade,
    seql,
    ssd,
    ssp,
    tau_norm,
    tde,
    vs,
)
from longtail.methods.card import Card
from longtail.methods.options import Option, assign, options_of
from longtail.training.budget import BUDGET_FIELDS, Context, family
from longtail.training.recipe import Recipe

__all__ = ["METHODS", "MODIFIERS", "Card", "Entry", "Option", "build", "card", "modifiers", "names", "options", "parse"]


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        function: Makes a recipe, or changes one.
        card: What a person is told.
        published: Fields of the ``published`` budget of CIFAR that differ in the method's own code from LDAM-DRW's.
        published_on: By name of another data set, fields of its ``published`` budget that differ in the method's own
            code from the decoupling code's.
        presets: Of a modifier: options of the method that default to other values under it, where the method has them.
        needs_dev: It learns from a development set, at its default options.
        trains_on_dev: Of a modifier: the development set joins the training set.
    """

    function: Callable[..., Recipe]
    card: Card
    published: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Any] = field(default_factory=dict)
    published_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs_dev: bool = False
    trains_on_dev: bool = False


METHODS: Mapping[str, Entry] = {
    "ce": Entry(ce.ce, ce.CARD),
    "focal": Entry(focal.focal, focal.CARD),
    "rw": Entry(reweighting.rw, reweighting.CARD),
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
    "tde": Entry(tde.tde, tde.CARD, tde.PUBLISHED),
    "crt": Entry(crt.crt, crt.CARD),
    "lws": Entry(lws.lws, lws.CARD),
    "tau-norm": Entry(tau_norm.tau_norm, tau_norm.CARD),
    "ncm": Entry(ncm.ncm, ncm.CARD),
    "fsa": Entry(fsa.fsa, fsa.CARD),
    "oltr": Entry(oltr.oltr, oltr.CARD, published_on=oltr.PUBLISHED_ON),
    "mislas": Entry(mislas.mislas, mislas.CARD, mislas.PUBLISHED, published_on=mislas.PUBLISHED_ON),
    "gcl": Entry(gcl.gcl, gcl.CARD, gcl.PUBLISHED),
    "mbj": Entry(mbj.mbj, mbj.CARD),
    "m2m": Entry(m2m.m2m, m2m.CARD),
    "independent-experts": Entry(independent_experts.independent_experts, independent_experts.CARD),
    "ride": Entry(ride.ride, ride.CARD, ride.PUBLISHED, published_on=ride.PUBLISHED_ON),
    "dive": Entry(dive.dive, dive.CARD, dive.PUBLISHED),
    "ssd": Entry(ssd.ssd, ssd.CARD, ssd.PUBLISHED, published_on=ssd.PUBLISHED_ON),
    "bbn": Entry(bbn.bbn, bbn.CARD, bbn.PUBLISHED, published_on=bbn.PUBLISHED_ON),
    "reslt": Entry(reslt.reslt, reslt.CARD, reslt.PUBLISHED),
    "sade": Entry(sade.sade, sade.CARD, sade.PUBLISHED, published_on=sade.PUBLISHED_ON),
    "ace": Entry(ace.ace, ace.CARD, ace.PUBLISHED),
    "lfme": Entry(lfme.lfme, lfme.CARD, published_on=lfme.PUBLISHED_ON),
    "da-meta": Entry(da_meta.da_meta, da_meta.CARD, da_meta.PUBLISHED, needs_dev=True),
    "l2rw": Entry(l2rw.l2rw, l2rw.CARD, needs_dev=True),
    "meta-weight-net": Entry(
        meta_weight_net.meta_weight_net, meta_weight_net.CARD, meta_weight_net.PUBLISHED, needs_dev=True
    ),
    "cb-finetune": Entry(cb_finetune.cb_finetune, cb_finetune.CARD, needs_dev=True),
}

# In the order in which they are applied, whatever order a person types.
MODIFIERS: Mapping[str, Entry] = {
    "drw": Entry(deferred.drw, deferred.DRW_CARD),
    "drs": Entry(deferred.drs, deferred.DRS_CARD),
    "mixup": Entry(mixup.mixup, mixup.CARD),
    "cutmix": Entry(cutmix.cutmix, cutmix.CARD),
    "remix": Entry(remix.remix, remix.CARD),
    "cmo": Entry(cmo.cmo, cmo.CARD),
    "cam": Entry(cam.cam, cam.CARD, cam.PUBLISHED),
    "autoaug": Entry(autoaug.autoaug, autoaug.CARD),
    "randaug": Entry(randaug.randaug, randaug.CARD),
    "h2t": Entry(h2t.h2t, h2t.CARD, h2t.PUBLISHED, h2t.PRESETS),
    "ssp": Entry(ssp.ssp, ssp.CARD),
    "ea": Entry(ride_assignment.ea, ride_assignment.CARD),
    "post-hoc-la": Entry(la.post_hoc_la, la.POST_HOC_CARD),
    "dev": Entry(dev.dev, dev.CARD, needs_dev=True, trains_on_dev=True),
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
        raise unknown_name("method", method, METHODS, _titles(METHODS))
    for mod in mods:
        if mod in METHODS:
            raise UsageError(f"{mod!r} is a method, not a modifier; a run has one method", fix=f"use {method} or {mod}")
        if mod not in MODIFIERS:
            raise unknown_name("modifier", mod, MODIFIERS, _titles(MODIFIERS))
        if mods.count(mod) > 1:
            raise UsageError(f"modifier {mod!r} is given twice in {name!r}")
    return (method, *(mod for mod in MODIFIERS if mod in mods))


def _titles(entries: Mapping[str, Entry]) -> dict[str, str]:
    return {name: entry.card.title for name, entry in entries.items()}


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
        raise unknown_name("method", name, entries, _titles(entries))
    return entries[name].card


def takes_teacher(name: str) -> bool:
    """Return whether any part of a name learns from a finished run."""
    return any(card(part).teacher for part in parse(name))


def needs_dev(name: str) -> bool:
    """Return whether any part of a name learns from a development set."""
    return any({**METHODS, **MODIFIERS}[part].needs_dev for part in parse(name))


def trains_on_dev(name: str) -> bool:
    """Return whether a name's training set includes the development set."""
    return any(MODIFIERS[mod].trains_on_dev for mod in parse(name)[1:])


def part_options(part: str) -> dict[str, Option]:
    """Return the options of one method or modifier, by name."""
    return options_of(part, {**METHODS, **MODIFIERS}[part].function)


def options(name: str) -> dict[str, Option]:
    """Return the options of every part of a name, by ``part.name``."""
    return {f"{part}.{option.name}": option for part in parse(name) for option in part_options(part).values()}


def option_names(name: str) -> set[str]:
    """Return the names of the options that a run takes: fields of the budget, the method's own, and ``part.option``.

    Raises:
        UsageError: The method is unknown.
    """
    own = options(name)
    return {*BUDGET_FIELDS, *own, *(option.name for option in own.values())}


def check_options(names: Sequence[str], given: Iterable[str], also: Iterable[str] = ()) -> None:
    """Refuse options that none of several methods takes.

    Args:
        names: The methods, with modifiers.
        given: Names of the options; hyphens count as underscores.
        also: What else a misspelt one may stand for, such as the flags of a command.

    Raises:
        UsageError: A method is unknown, or an option of none of them.
    """
    known = {option.replace("_", "-") for name in names for option in option_names(name)}
    for key in given:
        if key.replace("_", "-") in known:
            continue
        part, dot, _ = key.rpartition(".")
        if dot and not any(part in name.split("+") for name in names):
            raise UsageError(f"option --{key} is for {part!r}, which is no part of {', '.join(map(repr, names))}")
        raise unknown_name("option", f"--{key}", [*also, *(f"--{option}" for option in known)])


def published_budget(name: str, dataset: str) -> dict[str, Any]:
    """Return the budget fields that the codes of a name's parts set on a data set otherwise than its usual code.

    What the method's own code sets goes before what a modifier's does, and a later modifier before an earlier one.
    """
    entries = {**METHODS, **MODIFIERS}
    method, *mods = parse(name)
    changes: dict[str, Any] = {}
    for entry in (entries[part] for part in (*mods, method)):
        changes |= entry.published if family(dataset) == "cifar" else entry.published_on.get(dataset, {})
    return changes


def build(name: str, context: Context, given: Mapping[str, Any] | None = None) -> Recipe:
    """Build the recipe of ``method+modifier+...``.

    Args:
        name: The name.
        context: Class counts, protocol and budget.
        given: Options by name, see `longtail.methods.options.assign`.

    Raises:
        UsageError: A name or option is unknown, a value is refused, or the parts do not fit together.
    """
    parts = parse(name)
    known = part_options(parts[0])
    arguments = assign([known, *(part_options(mod) for mod in parts[1:])], given or {})
    presets = {k: v for mod in parts[1:] for k, v in MODIFIERS[mod].presets.items() if k in known}
    try:
        recipe = _made(parts[0], METHODS[parts[0]].function, context, **{**presets, **arguments[0]})
        for number, mod in enumerate(parts[1:], 1):
            recipe = _made(mod, MODIFIERS[mod].function, recipe, context, **arguments[number])
    except UsageError as error:
        full = "+".join(parts)
        if error.message.split()[0].rstrip(":") in (full, parts[0]):
            raise
        raise UsageError(f"{full}: {error.message}", fix=error.fix) from error  # of several methods, this one
    return recipe


def _made(part: str, function: Callable[..., Recipe], *on: Recipe | Context, **options: Any) -> Recipe:
    """Call a method or modifier; a value that a loss, sampler or mixing refuses in it is wrong use of the part."""
    try:
        return function(*on, **options)
    except ValueError as error:
        raise UsageError(f"{part}: {error}") from error
