"""Do the experts differ, and what does their answer together gain: for runs that have several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longtail.report.sections.chart import details, row, table
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.study import Entry, Study, mean_of
from longtail.report.sections.words import percent


def experts_section(study: Study) -> Markup | None:
    """Return the section; None where no run has experts."""
    having = [entry for entry in study.entries if _has_experts(entry)]
    if not having:
        return None
    opened = study.best.number if study.best in having else -1
    if len(study.entries) == 1:
        blocks: Markup = _block(study, having[0])
    else:
        others = [e for e in study.entries if e not in having]
        blocks = details(
            [(e.number, e.label, _block(study, e)) for e in having]
            + [(e.number, e.label, tag("p", "A single network, without experts.", class_="note")) for e in others],
            opened if opened >= 0 else study.best.number,
        )
    return tag("section", tag("h2", "Experts"), blocks, id="experts")


def _has_experts(entry: Entry) -> bool:
    return entry.answers[0].agreement is not None or entry.answers[0].assignment is not None


def _block(study: Study, entry: Entry) -> Markup:
    answers = entry.answers[0]
    seed = entry.runs[0].config.seed
    only = tag("p", f"Of seed {seed}, the first of {len(entry.runs)}.", class_="note") if len(entry.runs) > 1 else None
    if answers.agreement is not None:
        return join(_agreement(study, answers.agreement), only)
    assert answers.assignment is not None
    return join(_assignment(answers.assignment), only)


def _agreement(study: Study, agreement: Mapping[str, Any]) -> Markup:
    gain = agreement["average"]["top1"] - agreement["best_expert_top1"]
    apart = agreement["mean_disagreement"]
    how = "better" if gain >= 0 else "worse"
    sentences = [f"Together the experts are {abs(gain):.1f} points {how} than the best of them."]
    if apart is not None:
        sentences.append(f"Two experts name different classes on {100 * apart:.1f} % of the images.")
    if agreement["mean_error_correlation"] is not None:
        sentences.append(
            f"Their errors correlate at {agreement['mean_error_correlation']:.2f}: at 1 they err on the same images, "
            "and an average gains nothing."
        )
    columns = ["answer of", "top-1", *study.groups, "right where together wrong", "wrong where together right"]
    rows = [_accuracies(study, "all together", agreement["average"])]
    rows += [_accuracies(study, f"expert {k}", expert) for k, expert in enumerate(agreement["experts"], 1)]
    return join(
        tag("p", " ".join(sentences)),
        table(columns, rows, caption="Accuracy of each expert, in percent; the last two columns count images"),
        tag(
            "div",
            _pairwise("Share of images on which two experts differ, in percent", agreement["disagreement"], 100),
            _pairwise("Correlation of their errors", agreement["error_correlation"], 1),
            class_="pair",
        ),
    )


def _accuracies(study: Study, name: str, answer: Mapping[str, Any]) -> Markup:
    per_class = np.array([np.nan if value is None else value for value in answer["per_class"]])
    groups = [percent(mean_of(per_class[study.groups[group]])) for group in study.groups]
    against = [f"{answer[key]:,}" if key in answer else "" for key in ("right_average_wrong", "wrong_average_right")]
    return row(name, percent(answer["top1"]), *groups, *against)


def _pairwise(caption: str, matrix: Sequence[Sequence[float | None]], factor: float) -> Markup:
    rows = []
    for k, values in enumerate(matrix):
        cells = []
        for other, value in enumerate(values):
            if other == k:
                cells.append(tag("td", "–"))
            elif value is None:
                cells.append(tag("td", "n/a"))
            else:
                text = percent(factor * value) if factor == 100 else f"{value:.2f}".replace("-", "−")
                cells.append(tag("td", text, class_="heat", style=f"--h:{min(max(value, 0), 1):.3f}"))
        rows.append(tag("tr", tag("th", f"expert {k + 1}", scope="row"), cells))
    return table(["", *(str(k + 1) for k in range(len(matrix)))], rows, caption=caption, class_="confusion")


def _assignment(assignment: Mapping[str, Any]) -> Markup:
    saved = 100 * (1 - assignment["gflops"] / assignment["gflops_of_all"])
    text = (
        f"Routers ask {assignment['experts_used']:.2f} of {assignment['experts']} experts on average, which saves "
        f"{saved:.0f} % of the multiplications ({assignment['gflops']:.3g} of {assignment['gflops_of_all']:.3g} "
        "billion an image)."
    )
    rows = [
        row(f"{number} asked", percent(part["share"]), percent(part["top1"]))
        for number, part in enumerate(assignment["by_experts"], 1)
    ]
    caption = "How far images went, in percent of them, and how many of those were right"
    return join(tag("p", text), table(["experts", "images", "right"], rows, caption=caption))
