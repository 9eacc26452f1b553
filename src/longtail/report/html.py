"""The report page: one HTML file that holds everything, asks no network, and opens anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from longtail import __version__
from longtail.report.sections.calibration import calibration_section
from longtail.report.sections.classes import class_section
from longtail.report.sections.examples import Examples, find_examples
from longtail.report.sections.experts import experts_section
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.mistakes import mistakes_section
from longtail.report.sections.overview import comparison, headline, shot_group_section
from longtail.report.sections.setup import setup_section
from longtail.report.sections.study import Study, make_study
from longtail.report.sections.training import training_section
from longtail.report.sections.words import many
from longtail.run import Run

_TITLES = {
    "comparison": "Comparison",
    "groups": "Groups",
    "classes": "Classes",
    "confidences": "Confidences",
    "mistakes": "Mistakes",
    "experts": "Experts",
    "training": "Training",
    "settings": "Settings",
}
NO_IMAGES = "they were not asked for."


def report_page(runs: Sequence[Run], *, data_root: str | Path | None = None, images: bool = True) -> str:
    """Return the report on finished runs of one training set as one HTML document.

    Seeds of one method are averaged. Plain cross-entropy, if it is among the runs, is what gains are measured from.

    Args:
        runs: The runs.
        data_root: Folder of the data sets, for example images; None takes the usual one.
        images: Whether example images are shown, where the data set is at hand.

    Raises:
        UsageError: The runs do not belong on one page.
        LongtailError: A run is not finished, or damaged.
    """
    study = make_study(runs)
    return page(study, find_examples(study, data_root) if images else NO_IMAGES)


def page(study: Study, examples: Examples | str) -> str:
    """Return the document.

    Args:
        study: The runs in order.
        examples: Where example images come from, or why there are none.
    """
    sections = {
        "comparison": comparison(study),
        "groups": shot_group_section(study),
        "classes": class_section(study),
        "confidences": calibration_section(study),
        "mistakes": mistakes_section(study, examples),
        "experts": experts_section(study),
        "training": training_section(study),
        "settings": setup_section(study),
    }
    shown = {name: content for name, content in sections.items() if content is not None}
    title, script = _title(study), _asset("page.js")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(_asset("page.css"))),
    )
    body = tag(
        "body",
        tag("a", "To the results", href="#main", class_="skip"),
        tag("header", tag("h1", title), tag("p", _about(study), class_="sub")),
        _bar(study, list(shown)),
        tag("main", headline(study), *shown.values(), id="main"),
        tag("footer", f"Made by longtail {__version__}. Numbers are those of the last epoch; {_selection(study)}"),
        tag("script", Markup(script)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _asset(name: str) -> str:
    return resources.files("longtail.report.sections").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return what the page may do: its own script and images, and no network, whatever a class name holds."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _title(study: Study) -> str:
    config = study.first.config
    what = f"{config.dataset}, imbalance {config.imbalance:g}"
    return f"{study.entries[0].label} on {what}" if len(study.entries) == 1 else what


def _about(study: Study) -> str:
    config, counts = study.first.config, study.counts
    return (
        f"{many(len(counts), 'class', 'classes')}, {many(int(counts.sum()), 'training image')} ({counts.max():,} to "
        f"{counts.min():,} a class), {many(int(study.test_counts.sum()), 'test image')}; protocol {config.protocol}, "
        f"{many(int(config.budget['epochs']), 'epoch')}, {config.backbone}."
    )


def _selection(study: Study) -> str:
    chosen = {run.metrics.get("selection") for entry in study.entries for run in entry.runs}
    return (
        "nothing was selected on the test set." if chosen == {"last-epoch"} else "see the settings for the selection."
    )


def _bar(study: Study, names: Sequence[str]) -> Markup:
    """Return the bar that stays in sight: the way to the sections, and which entry is looked at."""
    links = tag("nav", [tag("a", _TITLES[name], href=f"#{name}") for name in names], aria_label="Sections")
    picker = None
    if len(study.entries) > 1:
        options = [
            tag("option", entry.label, value=entry.number, selected=entry is study.best) for entry in study.entries
        ]
        label = tag("label", "Look at", for_="pick")
        picker = tag("div", label, tag("select", options, id="pick", autocomplete="off"), class_="picker js-only")
    return tag("div", tag("div", join(links, picker)), class_="bar-top")
