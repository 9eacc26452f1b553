"""Predictions on files equal those on the data set's own images; bad files are named and never fatal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import longtail
from longtail import data, predict
from longtail.errors import LongtailError, UsageError
from longtail.predict import find_files, grey, predict_files, read_images
from pictures import jpeg_bytes, picture, png_that_says


@pytest.fixture
def loaded(photo_run):
    return data.load(photo_run.config.source, image_size=20)


def test_files_are_answered_as_the_images_of_the_data_set(photo_run, loaded, monkeypatch):
    monkeypatch.setattr(predict, "_BATCH", 3)  # several batches, the last one short
    source = Path(photo_run.config.source)
    files = [source / file.path for file in loaded.origin.files["test"]]
    answers, problems = predict_files(photo_run, files, top_k=3)
    assert problems == []
    assert [answer.path for answer in answers] == [str(path) for path in files]
    expected = photo_run.predict_proba(loaded.test.images)
    labels = photo_run.predict(loaded.test.images)
    for answer, row, label in zip(answers, expected, labels, strict=True):
        assert answer.classes[0] == photo_run.task.class_names[label]
        np.testing.assert_allclose(sorted(row, reverse=True), answer.confidences, rtol=1e-5)
        assert dict(zip(answer.classes, answer.confidences, strict=True)) == {
            name: pytest.approx(float(p), rel=1e-5) for name, p in zip(photo_run.task.class_names, row, strict=True)
        }


def test_a_prior_shifts_answers(photo_run, loaded):
    source = Path(photo_run.config.source)
    prior = np.array([0.0, 1.0, 1.0])
    answers, _ = predict_files(photo_run, [source], top_k=9, prior=prior)
    assert len(answers) == 44
    assert all(len(answer.classes) == 3 for answer in answers)  # there are no more
    never = photo_run.task.class_names[0]
    assert all(answer.classes[2] == never and answer.confidences[2] == 0 for answer in answers)
    shifted = photo_run.predict_proba(loaded.test.images, prior)
    scores = photo_run.logits(loaded.test.images) / photo_run.posterior.temperature
    odds = np.exp(scores[:, 1:]) / photo_run.posterior.reference[1:]
    np.testing.assert_allclose(shifted[:, 1:], odds / odds.sum(1, keepdims=True), rtol=1e-4)


def test_answers_that_match_a_prior_are_of_all_files_together(photo_run, loaded, monkeypatch):
    monkeypatch.setattr(predict, "_BATCH", 3)
    source = Path(photo_run.config.source)
    files, prior = [source / file.path for file in loaded.origin.files["test"]], np.array([1.0, 2.0, 5.0])
    answers, _ = predict_files(photo_run, files, top_k=3, prior=prior, match=True)
    names = photo_run.task.class_names
    table = np.array([[dict(zip(a.classes, a.confidences, strict=True))[name] for name in names] for a in answers])
    np.testing.assert_allclose(table.mean(0), prior / 8, atol=1e-5)
    np.testing.assert_allclose(photo_run.predict_proba(loaded.test.images, prior, match=True), table, atol=1e-5)
    with pytest.raises(UsageError, match="match needs a prior"):
        predict_files(photo_run, files, match=True)
    with pytest.raises(ValueError, match="match needs a prior"):
        photo_run.predict_proba(loaded.test.images, match=True)


def test_every_bad_file_is_named_and_skipped(photo_run, tmp_path):
    folder = tmp_path / "new"
    (folder / "deep" / "er").mkdir(parents=True)
    picture(0, 1).save(folder / "deep" / "er" / "new\nline.png", "PNG")
    picture(1, 1).save(folder / "ünï 日本.jpg")
    picture(2, 1).save(os.fsencode(folder) + b"/latin-\xe9.png", "PNG")
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(jpeg_bytes()[:-900])
    (folder / "bomb.png").write_bytes(png_that_says(60000, 60000))
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "loop").symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    os.mkfifo(folder / "pipe.png")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    Image.new("I;16", (30, 30), 40000).save(folder / "deep16.png")
    answers, problems = predict_files(photo_run, [folder, tmp_path / "nowhere.png", folder / "dot.png"])
    assert sorted(Path(answer.path).name for answer in answers) == sorted(
        ["deep16.png", "dot.png", "latin-\\xe9.png", "new\nline.png", "ünï 日本.jpg"]
    )
    assert {(Path(problem.path).name, problem.kind) for problem in problems} == {
        ("zero.jpg", "empty file"), ("cut.jpg", "damaged"), ("bomb.png", "too large"), ("notes.txt", "not an image"),
        ("loop", "not a file"), ("self.png", "not a file"), ("pipe.png", "not a file"), ("nowhere.png", "missing"),
    }  # fmt: skip
    for text in [*(a.path for a in answers), *(p.path for p in problems)]:
        text.encode()  # can be written


def test_nothing_at_all_is_no_error(photo_run, tmp_path):
    assert predict_files(photo_run, [tmp_path]) == ([], [])
    assert predict_files(photo_run, [tmp_path], prior=np.ones(3), match=True) == ([], [])
    images, problems = read_images(photo_run.task, [tmp_path])
    assert (images.shape, problems) == ((0, 3, 20, 20), [])


def test_each_file_once_in_the_order_given(tmp_path):
    for name in ("b.png", "a.png"):
        picture(0, 0).save(tmp_path / name)
    found = find_files([tmp_path / "b.png", tmp_path, str(tmp_path / "b.png")], [])
    assert found == [tmp_path / "b.png", tmp_path / "a.png"]


def test_colour_files_for_a_grey_run():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 9), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))
    assert (grey(pixels) == expected[None]).all()
    same = np.repeat(pixels[:1], 3, axis=0)
    assert (grey(same) == pixels[:1]).all()


def test_wrong_use(photo_run, tmp_path):
    with pytest.raises(UsageError, match="top_k is 0"):
        predict_files(photo_run, [tmp_path], top_k=0)
    with pytest.raises(UsageError, match="unknown device"):
        predict_files(photo_run, [tmp_path], device="sofa")


def test_without_test_logits_confidences_are_plain_and_a_prior_is_refused(photo_run, loaded, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(photo_run.path, copy)
    (copy / "test_logits.npz").write_bytes(b"rubbish")
    with pytest.raises(
        LongtailError, match=r"test_logits.npz is damaged[^\n]*\n.*remove the file, then longtail train --resume"
    ):
        _ = longtail.load(copy).posterior
    (copy / "test_logits.npz").unlink()
    run = longtail.load(copy)
    logits = run.logits(loaded.test.images).astype(np.float64)
    plain = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(run.predict_proba(loaded.test.images), plain, rtol=1e-5)
    for state, told in (
        (True, "longtail train --resume --out .*run writes it again"),
        (False, "train the run again in"),
    ):
        (copy / "state.pt").touch() if state else (copy / "state.pt").unlink()
        with pytest.raises(LongtailError, match=f"leave --prior out; else {told}"):
            predict_files(run, [photo_run.config.source], prior=np.ones(3))


def test_a_single_file_may_be_given_as_it_is(photo_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(0, 1).save("photo.png")
    for file in ("photo.png", Path("photo.png")):
        assert find_files(file, []) == [Path("photo.png")]
        assert [answer.path for answer in predict_files(photo_run, file)[0]] == ["photo.png"]


def test_a_prior_may_be_said_as_on_the_command_line(photo_run, loaded, tmp_path):
    images, names = loaded.test.images, photo_run.task.class_names
    counts = np.array(photo_run.task.class_counts, dtype=np.float64)
    said = {"balanced": np.ones(3), "train": counts}
    for word, prior in said.items():
        np.testing.assert_allclose(photo_run.predict_proba(images, word), photo_run.predict_proba(images, prior))
    expected = photo_run.predict_proba(images, [1, 2, 5])
    mapping = dict(zip(names, (1, 2, 5), strict=True))
    (tmp_path / "prior.csv").write_text("".join(f"{name},{share}\n" for name, share in mapping.items()))
    for prior in (mapping, tmp_path / "prior.csv", str(tmp_path / "prior.csv")):
        np.testing.assert_allclose(photo_run.predict_proba(images, prior), expected, rtol=1e-6)
    matched = photo_run.predict_proba(images, mapping, match=True)
    np.testing.assert_allclose(matched.mean(0), np.array([1, 2, 5]) / 8, atol=1e-5)
    source = Path(photo_run.config.source)
    assert predict_files(photo_run, source, prior=mapping)[0] == predict_files(photo_run, source, prior=[1, 2, 5])[0]
    with pytest.raises(UsageError, match="the prior has no number for 1 of 3 classes"):
        photo_run.predict_proba(images, {names[0]: 1, names[1]: 2})
    with pytest.raises(UsageError, match="unknown class in the prior: 'pink'"):
        photo_run.predict_proba(images, {**mapping, "pink": 1})


@pytest.mark.parametrize("files", [["a.jpg"], "a.jpg", Path("a.jpg")])
def test_files_in_place_of_arrays_are_shown_the_way(photo_run, files):
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 3, 20, 20\); files .* longtail.predict.predict_files"):
        photo_run.predict(files)


def test_modules_for_single_runs_need_no_import_of_their_own():
    code = "import longtail; print(longtail.predict.predict_files, longtail.export, longtail.tracking.TRACKERS)"
    assert subprocess.run([sys.executable, "-c", code], check=True).returncode == 0
