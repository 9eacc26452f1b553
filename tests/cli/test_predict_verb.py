"""`longtail predict`: what is printed and written, and which status it ends with."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest
from PIL import Image

from longtail import load


@pytest.fixture
def pictures(tmp_path, digits):
    folder = tmp_path / "new"
    folder.mkdir()
    for k in range(0, 60, 10):
        Image.fromarray(digits.test.images[k, 0].numpy()).save(folder / f"{k:02d}.png")
    return folder


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_on_stdout(longtail, finished, pictures, digits):
    (pictures / "bad.jpg").write_bytes(b"rubbish")
    said = longtail("predict", str(finished), str(pictures), "--top-k", "2")
    assert said.status == 0
    table = rows(said.out)
    assert list(table[0]) == ["path", "class", "confidence", "class_2", "confidence_2"]
    assert [row["path"] for row in table] == [str(pictures / f"{k:02d}.png") for k in range(0, 60, 10)]
    assert all(float(row["confidence"]) >= float(row["confidence_2"]) for row in table)
    assert f"skipped: {pictures / 'bad.jpg'}: not an image" in said.err
    assert "fitted on 500 held-out images" in said.err


def test_answers_are_those_of_the_run(finished, pictures, digits):
    run = load(finished)
    images = digits.test.images[0:60:10]
    from longtail.predict import predict_files

    answers, _ = predict_files(run, [pictures])
    assert [int(answer.classes[0]) for answer in answers] == run.predict(images).tolist()
    assert [answer.confidences[0] for answer in answers] == pytest.approx(run.predict_proba(images).max(1))


def test_json_and_files(longtail, finished, pictures):
    (pictures / "bad.jpg").write_bytes(b"")
    said = longtail("predict", str(finished), str(pictures), "--json", "--quiet", "--out", "answers.csv")
    assert said.status == 0
    assert len(said.json["predictions"]) == 6
    assert said.json["skipped"] == [{"path": str(pictures / "bad.jpg"), "kind": "empty file", "detail": "0 bytes"}]
    assert said.json["held_out"] == 500
    with open("answers.csv", encoding="utf-8", newline="") as file:
        written = rows(file.read())
    assert [row["class"] for row in written] == [p["classes"][0] for p in said.json["predictions"]]
    plain = longtail("predict", str(finished), str(pictures), "--quiet", "--out", "answers.json")
    assert plain.out == "answers.json\n"
    with open("answers.json", encoding="utf-8") as file:
        assert json.load(file) == said.json


def test_priors(longtail, finished, pictures, tmp_path):
    lines = ["class,probability", *(f"{digit},{1 if digit == 7 else 0}" for digit in range(10))]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    said = longtail("predict", str(finished), str(pictures), "--prior", "p.csv", "--quiet")
    assert {(row["class"], row["confidence"]) for row in rows(said.out)} == {("7", "1.0000")}
    sure = {}
    for prior in ("train", "balanced"):
        document = longtail(
            "predict", str(finished), str(pictures), "--prior", prior, "--json", "--quiet", "--top-k", "10"
        ).json
        sure[prior] = [dict(zip(p["classes"], p["confidences"], strict=True))["9"] for p in document["predictions"]]
    # Of 9 there are 2 training images of 331.
    assert all(balanced > train for balanced, train in zip(sure["balanced"], sure["train"], strict=True))
    words = ["predict", str(finished), str(pictures), "--json", "--quiet", "--top-k", "10"]
    document = longtail(*words, "--prior", "balanced", "--match").json
    assert document["match"] is True
    total = {str(digit): 0.0 for digit in range(10)}
    for p in document["predictions"]:
        for name, sure_of in zip(p["classes"], p["confidences"], strict=True):
            total[name] += sure_of / len(document["predictions"])
    assert total == {name: pytest.approx(0.1, abs=1e-5) for name in total}
    assert longtail(*words, "--match").status == 2
    wrong = longtail("predict", str(finished), str(pictures), "--prior", "nowhere.csv")
    assert wrong.status == 1
    assert "the prior nowhere.csv cannot be read" in wrong.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no images are given"),
        (["x", "--top-k", "0"], "--top-k is 0"),
        (["x", "--out", "answers.xlsx"], "must end with .csv or .json"),
        (["x", "--out", "nowhere/answers.csv"], "there is no folder nowhere"),
    ],
)
def test_wrong_use(longtail, finished, words, message):
    said = longtail("predict", str(finished), *words)
    assert said.status == 2
    assert message in said.err


def test_where_nothing_can_be_read_the_status_says_so(longtail, finished):
    said = longtail("predict", str(finished), "nowhere.png", "--json", "--quiet")
    assert said.status == 1
    assert said.json["predictions"] == []
    assert said.json["skipped"][0]["kind"] == "missing"


def test_an_empty_folder_is_an_error_and_no_empty_answer(longtail, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    said = longtail("predict", str(finished), "empty", "--out", "answers.csv", "--quiet")
    assert (said.status, said.out) == (1, "")
    assert said.err == "longtail: there is no file in empty\n  name files, or folders of them\n"
    assert not (tmp_path / "answers.csv").exists()


def test_an_unfinished_run(longtail, unfinished, pictures):
    said = longtail("predict", str(unfinished), str(pictures))
    assert said.status == 1
    assert "is not finished" in said.err
    assert f"longtail train --resume --out {unfinished}" in said.err


def test_a_damaged_model_says_how_it_is_written_again(longtail, finished, pictures, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:500])
    said = longtail("predict", str(folder), str(pictures))
    assert (said.status, "model.safetensors is damaged" in said.err) == (1, True)
    assert f"remove the file, then longtail train --resume --out {folder} writes it again" in said.err


def test_help_imports_no_torch_and_evaluate_tells_the_calibrated_error(longtail, finished):
    assert longtail("predict", "--help").status == 0
    said = longtail("evaluate", str(finished), "--json").json
    assert said["calibrated"]["temperature"] > 0
    assert said["calibrated"]["ece"] < said["ece"]
