"""`longtail inspect` and `longtail train` on a person's own folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from longtail import load, train
from longtail.cli.loading import telling
from longtail.config import read_config
from pictures import make_folder

SMALL = ("--backbone", "resnet20", "--epochs", "2", "--batch-size", "8")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "my photos", {"red": 20, "grün": 12, "blue": 4})


def test_inspect_for_people(longtail, folder):
    (folder / "red" / "zero.jpg").write_bytes(b"")
    said = longtail("inspect", str(folder), "--plot", "sizes.png")
    assert said.status == 0
    for told in (
        "my-photos: 29 training and 7 test images of 3 classes, 16x16",
        "there is no test split: 7 of 36 images are held out",
        "imbalance factor (largest over smallest class): 5.33",
        "of 3",
        "formats: PNG 36",
        "empty file: red/zero.jpg (0 bytes)",
        "identical images: none",
        "longtail train",
    ):
        assert told in said.out, told
    assert next(line for line in said.out.splitlines() if "grün" in line).split()[:3] == ["grün", "10", "2"]
    assert Path("sizes.png").read_bytes().startswith(b"\x89PNG")


def test_labels_that_differ_in_case_or_spaces_are_doubted(longtail, fast, tmp_path):
    folder = make_folder(tmp_path / "trees", {"Oak": 12, "oak ": 5, "ash": 8})
    doubt = "'Oak' and 'oak ' differ in case and outer spaces only: one class?"
    said = longtail("inspect", str(folder))
    assert f"  1. {doubt}" in said.out
    assert "'oak ' " in next(line for line in said.out.splitlines() if line.lstrip().startswith("'oak"))
    said = longtail("train", str(folder), *fast, *SMALL, "--method", "ce", "--out", "run")
    assert said.status == 0
    assert said.err.splitlines().count(doubt) == 1


def test_inspect_for_machines(longtail, folder):
    said = longtail("inspect", str(folder), "--json", "--quiet")
    assert said.status == 0
    assert said.err == ""
    assert [row["name"] for row in said.json["classes"]] == ["blue", "grün", "red"]
    assert said.json["source"] == str(folder)
    assert said.json["suspects"]["images"] == []


def test_class_names_that_the_font_lacks_are_one_note(longtail, folder):
    (folder / "blue").rename(folder / "\u9f98\u9f98 \u9750")
    said = longtail("inspect", str(folder), "--plot", "sizes.png", "--json", "--quiet")
    assert (said.status, Path("sizes.png").exists()) == (0, True)
    assert said.err == "sizes.png: matplotlib's font lacks signs of some class names; they are drawn as boxes\n"


@pytest.mark.parametrize("words", [("digits",), (), ("digits", "--imbalance", "10")])
def test_inspect_a_known_data_set(longtail, words):
    said = longtail("inspect", *words, "--json")
    assert (said.status, said.json["dataset"], said.json["files"]) == (0, "digits", None)
    assert len(said.json["classes"]) == 10


def test_inspect_by_the_features_of_a_run(longtail, finished):
    said = longtail("inspect", "digits", "--run", str(finished), "--json")
    assert said.json["suspects"]["by"] == "features"
    assert said.json["suspects"]["judged"] in (0, 831)
    other = longtail("inspect", "digits", "--run", "nowhere")
    assert (other.status, "not a run folder" in other.err) == (1, True)


def test_wrong_use(longtail, folder, finished):
    wrong = longtail("inspect", str(folder), "--run", str(finished))
    assert (wrong.status, "was trained on other classes" in wrong.err) == (2, True)
    assert longtail("inspect", "nowhere/at/all").status == 2
    for plot, told in (("no/such/folder.png", "there is no folder no/such"), ("sizes.odd", "must end with .png")):
        said = longtail("inspect", "nothing", "--plot", plot)  # found before the data set is looked for
        assert (said.status, told in said.err) == (2, True)
    Path("taken.png").mkdir()
    said = longtail("inspect", "digits", "--plot", "taken.png")
    assert (said.status, "taken.png cannot be written: Is a directory" in said.err) == (1, True)
    (folder / "red" / "zero.jpg").write_bytes(b"")
    for verb in ("inspect", "train", "compare"):
        strict = longtail(verb, str(folder), "--strict")
        assert strict.status == 1
        assert "red/zero.jpg: empty file (0 bytes)" in strict.err
        assert len(strict.err.splitlines()) == 2
    cut = longtail("train", str(folder), "--imbalance", "3")
    assert (cut.status, "taken with the imbalance that it has" in cut.err) == (2, True)


def test_train_on_a_folder(longtail, fast, folder):
    (folder / "red" / "zero.jpg").write_bytes(b"")
    said = longtail("train", str(folder), *SMALL, *fast, "--out", "run")
    assert said.status == 0
    lines = said.err.splitlines()
    assert lines[0] == "my-photos: 29 training and 7 test images of 3 classes at 16x16, imbalance 5.33"
    assert lines[1].startswith("there is no test split: 7 of 36 images are held out for testing")
    assert lines[2] == f"problems: 1 empty file; `longtail inspect {folder}` names them"
    config, more = read_config(Path("run"))
    assert (config.dataset, config.source, config.image_size) == ("my-photos", str(folder), 16)
    assert (config.profile, config.imbalance) == ("natural", 16 / 3)
    assert len(config.fingerprint) == 32
    assert more["data"]["class_names"] == ["blue", "grün", "red"]
    assert load("run").task.class_names == ("blue", "grün", "red")
    assert longtail("evaluate", "run").status == 0


def test_classes_without_test_images_are_not_counted_as_measured(longtail, fast, folder):
    (folder / "one").mkdir()
    shutil.copy(folder / "blue" / "000.png", folder / "one")
    said = longtail("train", str(folder), *SMALL, *fast, "--out", "run", "--quiet")
    few = next(line for line in said.out.splitlines() if "few" in line)
    assert few.split()[2:] == ["3", "of", "4", "classes"]


def test_the_default_run_folder_is_named_after_the_data(longtail, fast, folder):
    said = longtail("train", str(folder), *SMALL, *fast, "--quiet", "--json")
    assert said.json["path"].startswith("runs/my-photos-if5.33333-bsce")
    assert said.err == ""


def test_resume_finds_the_folder_and_knows_its_contents(longtail, fast, folder):
    assert longtail("train", str(folder), "--method", "ce", *SMALL, *fast, "--out", "run", "--quiet").status == 0
    before = json.loads(Path("run/metrics.json").read_text())
    for name in ("metrics.json", "model.safetensors", "test_logits.npz"):
        Path("run", name).unlink()
    assert longtail("train", "--resume", "--out", "run", "--quiet").status == 0
    assert json.loads(Path("run/metrics.json").read_text())["top1"] == before["top1"]
    Path("run/metrics.json").unlink()
    moved = folder.rename(folder.with_name("moved"))  # the contents count, not the place
    gone = longtail("train", "--resume", "--out", "run")
    assert gone.status == 1
    assert f"{folder}: the images of the run are not there any more\n" in gone.err
    assert "longtail train NEW-PLACE --resume --out run" in gone.err
    said = longtail("train", str(moved), "--resume", "--out", "run", "--quiet")
    assert said.status == 0, said
    assert json.loads(Path("run/metrics.json").read_text())["dataset"] == "my-photos"  # as methods know it
    again = train(
        str(moved), "ce", resume=True, out="run", backbone="resnet20", epochs=2, batch_size=8, precision="fp32"
    )
    assert again.metrics["dataset"] == "my-photos"
    assert json.loads(Path("run/metrics.json").read_text())["top1"] == before["top1"]
    assert "was trained on my-photos, not on digits" in longtail("train", "digits", "--resume", "--out", "run").err
    assert "seed 4 here, 0 there" in longtail("train", str(moved), "--seed", "4", "--resume", "--out", "run").err
    shutil.move(moved, folder)
    (folder / "red" / "000.png").unlink()
    other = longtail("train", "--resume", "--out", "run")
    assert (other.status, "the images have changed: fingerprint" in other.err) == (2, True)


def test_train_from_python(folder, plain_run, tmp_path):
    options = {**plain_run, "epochs": 1, "batch_size": 8, "backbone": "resnet20"}
    run = train(str(folder), method="ce", image_size=8, out=tmp_path / "run", **options)
    assert run.task.image_shape == (3, 8, 8)
    assert run.metrics["dataset"] == "my-photos"


def test_compare_on_a_folder(longtail, fast, folder):
    said = longtail("compare", str(folder), "--methods", "ce,bsce", "--seeds", "1", *SMALL, *fast, "--json", "--quiet")
    assert said.status == 0
    assert said.json["out"] == "runs/compare-my-photos"


def test_slow_reading_says_a_line_now_and_then(capsys, monkeypatch):
    now = iter([0.0, 1.0, 6.0, 7.0])
    monkeypatch.setattr("longtail.cli.loading.time.monotonic", lambda: next(now))
    with telling(quiet=False) as tell:
        for done in (1, 1000, 2000):
            tell("decoding", done, 5000)
    assert capsys.readouterr().err == "decoding images: 1,000 of 5,000\n"
    with telling(quiet=True) as tell:
        tell("decoding", 1, 2)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with telling(quiet=False) as tell:
        for what in ("reading", "decoding"):
            tell(what, 0, 10)
            tell(what, 10, 10)
    assert capsys.readouterr().out == ""
