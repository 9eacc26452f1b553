"""What to try first on a data set, and why: rules of thumb, each with its reason and its command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from longtail.data.problems import alike

_BALANCED = 2.0
_LONG = 20.0
_FEW_TESTS = 5
_PHOTO = 64  # pixels; pretrained networks see nothing in smaller images
_SMALL = 50_000


def advice(found: Mapping[str, Any], named: str) -> list[dict[str, str | None]]:
    """Return pieces of advice in the order in which to follow them: ``why``, and the ``command``, None without one.

    Args:
        found: What `longtail.report.inspect.inspect` found.
        named: How the data set is named on the command line.
    """
    data = shlex.quote(named)
    return [*_about_files(found), *_about_training(found, data), *_about_numbers(found)]


def _about_files(found: Mapping[str, Any]) -> list[dict[str, str | None]]:
    pieces = []
    if doubt := alike(row["name"] for row in found["classes"]):
        pieces.append(_piece(doubt))
    unread = sum(not problem["used"] for problem in found["problems"])
    if unread:
        pieces.append(_piece(f"{unread} files or classes are left out: mend or remove them"))
    twice = [problem for problem in found["problems"] if problem["kind"] == "listed twice"]
    if twice:
        told = f"{len(twice)} {'line lists' if len(twice) == 1 else 'lines list'} a file again: the first line counts"
        differing = [problem for problem in twice if ", then " in problem["detail"]]
        if differing:
            first = f"{differing[0]['path']} {differing[0]['detail']}"
            told += f"; {len(differing)} with another class or split, such as {first}: decide for one"
        pieces.append(_piece(told))
    groups = [*found["duplicates"]["identical"], *found["duplicates"]["near"]]
    leaked = sum(group["across_splits"] for group in groups)
    if leaked:
        pieces.append(
            _piece(f"{leaked} pictures are in training and test: remove one of each, or the test measures memory")
        )
    doubtful = sum(group["across_classes"] for group in groups)
    if doubtful:
        pieces.append(_piece(f"{doubtful} pictures are in two classes: decide for one"))
    if found["suspects"]["images"]:
        pieces.append(
            _piece(
                f"{len(found['suspects']['images'])} labels look wrong: look at them; in a small class each one counts"
            )
        )
    return pieces


def _about_training(found: Mapping[str, Any], data: str) -> list[dict[str, str | None]]:
    imbalance, few = found["imbalance"], found["groups"]["few"]["classes"]
    pieces = []
    frozen = ""  # what commands say of the network where it stays as it is
    if found["files"] is not None and found["image_shape"][1] >= _PHOTO and found["train_images"] < _SMALL:
        frozen = " --backbone resnet50 --weights imagenet --freeze-backbone"
        pieces.append(
            _piece(
                f"{found['train_images']:,} photographs are few: a backbone pretrained on ImageNet, left as it is, is "
                f"the cheapest strong start, and its classifier trains in seconds; hence{frozen} below"
            )
        )
    if imbalance is not None and imbalance < _BALANCED:
        why = f"the classes are nearly equally large (imbalance {imbalance:.3g}): cross-entropy needs no help"
        return [*pieces, _piece(why, f"longtail train {data} --method ce{frozen}")]
    pieces.append(
        _piece(
            "balanced softmax first: it corrects for class sizes inside the loss, costs nothing and needs no tuning",
            f"longtail train {data} --method bsce{frozen}",
        )
    )
    methods = "ce,bsce,crt" if imbalance is not None and imbalance < _LONG else "ce,bsce,ldam+drw,crt"
    pieces.append(
        _piece(
            "then see on your data what each kind of method gains over cross-entropy: a prior in the loss (bsce)"
            + (", margins (ldam+drw)" if "ldam" in methods else "")
            + ", a re-trained classifier (crt)",
            f"longtail compare {data} --methods {methods} --seeds 3{frozen}",
        )
    )
    if few:
        what = f"{few} class has" if few == 1 else f"{few} classes have"
        pieces.append(
            _piece(
                f"{what} fewer than 20 images: what balances late (ce+drw) or after training (ce+post-hoc-la) helps "
                "them at no cost, in a short training more than bsce does; +cmo, which pastes them onto backgrounds of "
                "frequent classes, is for long trainings, in 24 epochs it lost 2 to 3 points",
                f"longtail compare {data} --methods bsce,ce+drw,ce+post-hoc-la --seeds 3{frozen}",
            )
        )
    return pieces


def _about_numbers(found: Mapping[str, Any]) -> list[dict[str, str | None]]:
    thin = sum(0 < row["test"] < _FEW_TESTS for row in found["classes"])
    if not thin:
        return []
    what = "1 class has" if thin == 1 else f"{thin} classes have"
    why = f"{what} fewer than {_FEW_TESTS} test images: trust groups of classes and several seeds, not single classes"
    return [_piece(why)]


def _piece(why: str, command: str | None = None) -> dict[str, str | None]:
    return {"why": why, "command": command}
