"""The report page where something is missing, damaged or does not fit; and what it is drawn with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages import Page, copied

from longtail.errors import LongtailError, UsageError
from longtail.report.html import NO_IMAGES, page, report_page
from longtail.report.sections import answers
from longtail.report.sections.chart import Frame, nice_ticks
from longtail.report.sections.classes import neighbours
from longtail.report.sections.examples import Examples, find_examples
from longtail.report.sections.study import make_study
from longtail.run import Run

# What is missing --------------------------------------------------------------------------------------------------


def test_images_are_shown_where_the_data_is(finished_runs):
    images = Page(report_page([finished_runs["ce-0"]])).all("img")
    assert images
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in images)


def test_without_the_data_the_section_says_so(finished_runs, tmp_path, monkeypatch):
    run = copied(finished_runs["ce-0"], tmp_path / "ce", run={"dataset": "cifar100"}, data={"name": "cifar100"})
    words = Page(report_page([run], data_root=tmp_path / "empty")).words
    assert "Example images are left out: the data set cifar100 is not at hand" in words
    assert str(tmp_path) not in words
    page_without = Page(report_page([finished_runs["ce-0"]], images=False))
    assert NO_IMAGES in page_without.words
    assert not page_without.all("img")


def test_another_data_set_of_that_name_is_not_shown(finished_runs, digits, monkeypatch):
    study = make_study([finished_runs["ce-0"]])
    turned = replace(digits, test=replace(digits.test, targets=digits.test.targets.flip(0)))
    monkeypatch.setattr("longtail.report.sections.examples.data_of", lambda run, root: turned)
    assert "not the one that the runs were made with" in find_examples(study, None)


def test_large_images_are_made_small(digits):
    big = torch.randint(0, 256, (3, 224, 336), dtype=torch.uint8)
    one = replace(digits.test, images=big[None], targets=digits.test.targets[:1])
    place = torch.zeros(1, dtype=torch.int64)
    photos = replace(digits, test=one, train=one, train_indices=place, mean=(0.5,) * 3, std=(0.5,) * 3)
    element = Examples(photos).of_test(0, "a photo")
    assert "data:image/jpeg" in element
    assert len(element) < 20_000
    assert 'width="64" height="43"' in element


def test_a_single_run_needs_no_comparison(finished_runs):
    parsed = Page(report_page([finished_runs["bsce-0"]], images=False))
    assert "comparison-table" not in parsed.tables
    assert not parsed.all("select")
    assert "No run of plain cross-entropy is among the runs" in parsed.words
    assert "Least recognised" in parsed.words


def test_experts_are_shown_where_there_are(finished_runs):
    parsed = Page(report_page([finished_runs["ce-0"], finished_runs["ride"]], images=False))
    assert "Accuracy of each expert" in parsed.words
    assert "A single network, without experts." in parsed.words
    assert "Accuracy of each expert" not in Page(report_page([finished_runs["ce-0"]], images=False)).words


def test_routers_are_told_by_how_far_images_went(finished_runs, tmp_path):
    run = copied(finished_runs["ride"], tmp_path / "routed")
    with np.load(run.path / "test_logits.npz") as content:
        arrays = dict(content)
    arrays["expert_logits"][1:, :200] = np.nan  # 200 of 500 images went no further than the first expert
    np.savez(run.path / "test_logits.npz", **arrays)
    assert "Routers ask 2.20 of 3 experts on average" in Page(report_page([run], images=False)).words


def test_a_class_without_test_images_is_left_open(finished_runs, tmp_path):
    run = copied(finished_runs["ce-0"], tmp_path / "ce")
    content = json.loads((run.path / "metrics.json").read_text())
    content["per_class"][9] = None
    (run.path / "metrics.json").write_text(json.dumps(content))
    with np.load(run.path / "test_logits.npz") as logits:
        kept = logits["targets"] != 9
        np.savez(run.path / "test_logits.npz", **{name: logits[name][kept] for name in ("logits", "targets")})
    rows = Page(report_page([run, finished_runs["bsce-0"]], images=False)).tables["classes-1"]
    assert ["9", "2", "few", "n/a"] in [row[:4] for row in rows]
    assert not re.search(r'="[^"]*\bnan\b', page(make_study([run]), NO_IMAGES))


# Runs that do not fit ---------------------------------------------------------------------------------------------


def test_variants_of_one_method_are_told_apart(finished_runs, tmp_path):
    other = copied(finished_runs["bsce-0"], tmp_path / "other", run={"backbone": "resnet20"})
    labels = [entry.label for entry in make_study([finished_runs["bsce-0"], other]).entries]
    assert labels == ["bsce (backbone small)", "bsce (backbone resnet20)"]


def test_runs_of_different_sets_are_refused(finished_runs, tmp_path):
    other = copied(finished_runs["ce-1"], tmp_path / "other")
    content = json.loads((other.path / "metrics.json").read_text())
    (other.path / "metrics.json").write_text(json.dumps({**content, "imbalance": 10.0}))
    with pytest.raises(UsageError, match="imbalance"):
        report_page([finished_runs["ce-0"], Run(other.path)])


def test_one_seed_twice_is_refused(finished_runs, tmp_path):
    with pytest.raises(UsageError, match="two runs of ce have seed 0"):
        report_page([finished_runs["ce-0"], copied(finished_runs["ce-0"], tmp_path / "again")])


def test_no_runs_are_refused():
    with pytest.raises(UsageError, match="at least one run"):
        report_page([])


@pytest.mark.parametrize("damage", ["missing", "cut", "classes"])
def test_damaged_answers_are_told(finished_runs, tmp_path, damage):
    run = copied(finished_runs["ce-0"], tmp_path / "run")
    path = run.path / "test_logits.npz"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        np.savez(path, logits=np.zeros((3, 4)), targets=np.zeros(3, int))
    with pytest.raises(LongtailError, match=r"test_logits\.npz"):
        report_page([run])


def test_lost_answers_are_written_again_by_what_is_told(finished_runs, tmp_path):
    run = copied(finished_runs["ce-0"], tmp_path / "run")
    (run.path / "test_logits.npz").unlink()
    (run.path / "state.pt").touch()
    with pytest.raises(LongtailError, match=r"longtail train --resume --out .*run writes it again"):
        report_page([run])


def test_a_page_on_a_folder_names_no_folder_of_the_machine(photo_run):
    text = report_page([photo_run])
    assert "longtail train photos --method bsce" in text
    assert str(Path(photo_run.config.source).parent) not in text


def test_the_cost_of_routed_experts_is_counted_on_what_the_network_sees(photo_run, monkeypatch):
    asked = []
    monkeypatch.setattr(answers, "multiplications", lambda network, shape: asked.append(shape))
    monkeypatch.setattr(answers, "expert_assignment", lambda *words: {})
    answers._experts(photo_run, np.full((2, 1, 3), np.nan), np.zeros(1, int), np.zeros((1, 3)))
    assert asked == [(3, 16, 16)]  # of stored images of 20 pixels


# Drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 250, 251, 1000])
def test_thousands_of_classes_share_marks_within_their_group(finished_runs, size):
    study = make_study([finished_runs["ce-0"]])
    counts = np.random.default_rng(0).integers(1, 300, size)
    run = SimpleNamespace(task=SimpleNamespace(class_counts=counts.tolist()))
    many_classes = replace(study, entries=(replace(study.entries[0], runs=(run,)),))
    marks = neighbours(many_classes)
    assert [k for _, classes in marks for k in classes] == many_classes.order.tolist()
    assert len(marks) <= 253
    assert size > 250 or len(marks) == size
    for group, classes in marks:
        assert {many_classes.group_of[k] for k in classes} == {group}


@pytest.mark.parametrize(("low", "high"), [(0, 100), (0, 34.2), (0.1, 0.13), (0, 24.5), (0, 1e-3), (5, 5)])
def test_ticks_are_round_and_hold_the_values(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 9
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_a_frame_turns_values_upside_down():
    frame = Frame(200, 0, 50)
    assert (frame.y(0), frame.y(50), frame.y(25)) == (200, 0, 100)


def _contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two #rrggbb or #rgb colours."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(scheme):
    css = resources.files("longtail.report.sections").joinpath("page.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{3,6});", block))
    for name in ("ink", "soft", "accent", "up", "down"):
        assert _contrast(colours[name], colours["paper"]) >= 4.5, name
    for name in ("many", "medium", "few", "was"):
        assert _contrast(colours[name], colours["paper"]) >= 3, name


def test_style_and_script_are_in_the_wheel():
    wheel = pytest.importorskip("hatchling.builders.wheel")
    root = Path(__file__).parents[2]
    files = {file.distribution_path for file in wheel.WheelBuilder(str(root)).recurse_included_files()}
    assert {f"longtail/report/sections/page.{kind}" for kind in ("css", "js")} <= files
