"""Where the wrong answers go: from group to group, and the pairs of classes that are mixed up most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longtail.report.sections.answers import Answers
from longtail.report.sections.chart import details, table
from longtail.report.sections.examples import Examples
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.study import Entry, Study
from longtail.report.sections.words import many, percent, points

_PAIRS = 6
_WRONG, _TYPICAL = 3, 2
_LEAST = 3  # images of a pair below which a share is chance, where there are pairs with more


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another.

    Attributes:
        true: The class that they are.
        taken: The class that was named.
        images: How many, all seeds together.
        share: Of the true class's images, in percent.
    """

    true: int
    taken: int
    images: int
    share: float


def mistakes_section(study: Study, examples: Examples | str) -> Markup:
    """Return the section.

    Args:
        study: The runs.
        examples: Where images come from, or why there are none.
    """
    blocks = [(entry.number, entry.label, _block(study, entry, examples)) for entry in study.entries]
    without = tag("p", "Example images are left out: ", examples, class_="note") if isinstance(examples, str) else None
    return tag("section", tag("h2", "Mistakes"), without, details(blocks, study.best.number), id="mistakes")


def _block(study: Study, entry: Entry, examples: Examples | str) -> Markup:
    return join(_between_groups(study, entry), _pairs(study, entry, examples))


def group_shares(study: Study, answers: Answers) -> dict[str, dict[str, float]]:
    """Return what becomes of each group's test images, in percent: ``right``, or the group that was named wrongly."""
    number = {name: place for place, name in enumerate(study.groups)}
    group = np.array([number[name] for name in study.group_of])
    true, named = group[answers.targets], group[answers.predictions]
    shares = {}
    for name, place in number.items():
        own = true == place
        total = max(int(own.sum()), 1)
        wrong = own & ~answers.right
        parts = {"right": int((own & answers.right).sum())}
        parts |= {other: int((wrong & (named == at)).sum()) for other, at in number.items()}
        shares[name] = {part: 100 * count / total for part, count in parts.items()}
    return shares


def _between_groups(study: Study, entry: Entry) -> Markup:
    shares = group_shares(study, entry.pooled)
    rival = study.rival(entry)
    before = None if rival is None else group_shares(study, rival.pooled)
    rows = []
    for group, parts in shares.items():
        cells = []
        for part, share in parts.items():
            moved = None if before is None else share - before[group][part]
            small = None if moved is None else tag("small", points(moved))
            kind = "heat good" if part == "right" else "heat"
            cells.append(tag("td", percent(share), " ", small, class_=kind, style=f"--h:{share / 100:.3f}"))
        rows.append(tag("tr", tag("th", f"{group}-shot", scope="row"), cells))
    columns = ["images of", "right", *(f"taken for {group}" for group in study.groups)]
    caption = "What becomes of each group's test images, in percent: right, or taken for another class, of which group"
    caption += "" if rival is None else f"; small: points against {rival.label}"
    return table(columns, rows, caption=caption, class_="confusion")


def worst_pairs(study: Study, answers: Answers) -> list[Pair]:
    """Return the ordered pairs of classes that are mixed up most, the worst first."""
    wrong = ~answers.right
    size = len(study.counts)
    codes, numbers = np.unique(answers.targets[wrong] * size + answers.predictions[wrong], return_counts=True)
    images = np.bincount(answers.targets, minlength=size)
    shares = 100 * numbers / images[codes // size]
    order = np.lexsort((codes, -numbers, -shares, numbers < _LEAST))[:_PAIRS]
    return [Pair(int(codes[k]) // size, int(codes[k]) % size, int(numbers[k]), float(shares[k])) for k in order]


def _pairs(study: Study, entry: Entry, examples: Examples | str) -> Markup:
    pairs = worst_pairs(study, entry.pooled)
    if not pairs:
        return tag("p", "It made no mistake on the test set.", class_="note")
    shown = [_pair(study, entry, pair, examples) for pair in pairs]
    return join(tag("h4", "Most often mixed up"), tag("ol", shown, class_="mixups"))


def _pair(study: Study, entry: Entry, pair: Pair, examples: Examples | str) -> Markup:
    true, taken = study.class_names[pair.true], study.class_names[pair.taken]
    total = many(int(study.test_counts[pair.true]) * len(entry.runs), "test image")
    what = tag("p", tag("b", true), " taken for ", tag("b", taken))
    counts = f"training images: {study.counts[pair.true]:,} and {study.counts[pair.taken]:,}"
    numbers = tag("p", f"{pair.images:,} of {total} ({percent(pair.share)} %); {counts}", class_="note")
    return tag("li", what, numbers, None if isinstance(examples, str) else _images(entry, pair, examples, true, taken))


def _images(entry: Entry, pair: Pair, examples: Examples, true: str, taken: str) -> Markup:
    """Show what was mistaken, with the surest mistakes of the first seed in front, and what it was taken for."""
    answers = entry.answers[0]
    hit = np.flatnonzero((answers.targets == pair.true) & (answers.predictions == pair.taken))
    surest = hit[np.argsort(-answers.confidences[hit], kind="stable")][:_WRONG]
    wrong = [
        examples.of_test(int(k), f"test image {k}: {true}, taken for {taken} at {100 * answers.confidences[k]:.0f} %")
        for k in surest
    ]
    typical = [
        examples.of_train(k, f"training image of {taken}") for k in examples.training_images(pair.taken, _TYPICAL)
    ]
    return tag(
        "div",
        tag("div", wrong, tag("small", "mistaken")) if wrong else None,
        tag("div", typical, tag("small", f"{taken}, training")) if typical else None,
        class_="images",
    )
