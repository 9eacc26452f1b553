"""What `longtail inspect` finds: the profile, doubles, labels that look wrong, and the advice."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from longtail import data
from longtail.cli.arguments import parse_open
from longtail.cli.compare import Compare
from longtail.cli.train import Train
from longtail.data import ImageSet
from longtail.report import inspect_images
from longtail.report.inspect import inspect, profile
from longtail.report.inspect_advice import advice
from longtail.report.inspect_images import Gallery, duplicates, suspects
from longtail.report.inspect_plot import class_count_bars
from longtail.request import rehearse
from pictures import make_folder, picture


def test_the_profile_in_numbers(digits):
    found = profile(digits)
    counts = [row["train"] for row in found["classes"]]
    assert counts == digits.class_counts
    assert [row["test"] for row in found["classes"]] == [50] * 10
    assert found["imbalance"] == 60
    shares = [count / sum(counts) for count in counts]
    assert found["effective_classes"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    assert found["groups"]["many"] == {"classes": 1, "train": 120}
    assert found["groups"]["few"] == {"classes": 5, "train": 13 + 8 + 5 + 3 + 2}
    assert profile(data.load("digits", imbalance=1))["effective_classes"] == pytest.approx(10)


def test_an_empty_class_has_no_imbalance_factor(digits):
    rows = (digits.train.targets != 9).nonzero()[:, 0]
    without = replace(digits, train=digits.train.subset(rows), train_indices=digits.train_indices[rows])
    found = inspect(without)
    assert found["imbalance"] is None
    assert found["classes"][9]["train"] == 0
    json.dumps(found, allow_nan=False)


def test_files_and_problems(tmp_path):
    folder = make_folder(tmp_path / "photos", {"a": 6, "b\n": 4})
    picture(0, 80, (50, 40)).convert("L").save(folder / "a" / "grey.jpg")
    (folder / "a" / "zero.png").write_bytes(b"")
    found = inspect(data.load(str(folder)))
    assert found["files"]["formats"] == {"PNG": 10, "JPEG": 1}
    assert found["files"]["modes"] == {"RGB": 10, "L": 1}
    assert found["files"]["width"] == {"smallest": 20, "median": 20.0, "largest": 50}
    assert found["problems"] == [{"path": "a/zero.png", "kind": "empty file", "detail": "0 bytes", "used": False}]
    assert [row["name"] for row in found["classes"]] == ["a", "b\\n"]
    assert found["advice"][0]["why"] == "1 files or classes are left out: mend or remove them"
    json.dumps(found, allow_nan=False)


@pytest.fixture
def doubled(tmp_path):
    """A folder with given splits and doubles of every sort; and one group of each, as paths."""
    root = tmp_path / "photos"
    make_folder(root / "train", {"a": 8, "b": 8})
    make_folder(root / "test", {"a": 3, "b": 3}, first=50)
    large = [picture(k, 200 + k, (320, 240)) for k in range(2)]
    large[0].save(root / "train" / "a" / "once.png")
    large[0].save(root / "test" / "a" / "leak.png")
    large[1].save(root / "train" / "b" / "sharp.jpg", quality=95)
    large[1].resize((200, 150)).save(root / "train" / "a" / "small.jpg", quality=70)
    return root, [["train/a/once.png", "test/a/leak.png"], ["train/a/small.jpg", "train/b/sharp.jpg"]]


def test_doubles(doubled):
    root, groups = doubled
    found = duplicates(Gallery.of(data.load(str(root))))
    told = {
        kind: [{image["name"] for image in group["images"]} for group in found[kind]] for kind in ("identical", "near")
    }
    assert told == {"identical": [set(groups[0])], "near": [set(groups[1])]}
    assert (found["identical"][0]["across_splits"], found["identical"][0]["across_classes"]) == (True, False)
    assert (found["near"][0]["across_splits"], found["near"][0]["across_classes"]) == (False, True)
    pieces = [piece["why"] for piece in advice(inspect(data.load(str(root))), "x")]
    assert "1 pictures are in training and test" in pieces[0]
    assert "1 pictures are in two classes" in pieces[1]


def test_plain_pictures_are_not_doubles(tmp_path):
    """Near doubles need something to see; identical files are told whatever they show."""
    folder = make_folder(tmp_path / "photos", {"a": 3, "b": 3})
    for k in range(4):
        Image.new("RGB", (20, 20), (k, 0, 0)).save(folder / "a" / f"plain{k}.png")
    found = duplicates(Gallery.of(data.load(str(folder))))
    assert found["identical"] == found["near"] == []
    assert found["compared"] == 6


def test_doubles_of_arrays(digits):
    twice = ImageSet(
        torch.cat([digits.test.images, digits.train.images[:1]]), torch.cat([digits.test.targets, torch.tensor([5])])
    )
    found = duplicates(Gallery.of(replace(digits, test=twice)))
    names = [[image["name"] for image in group["images"]] for group in found["identical"]]
    assert names == [["train 0", "test 500"]]


@pytest.fixture(scope="module")
def flipped():
    """Balanced digits with eight labels changed, and their positions."""
    whole = data.load("digits", imbalance=1)
    wrong = np.random.default_rng(0).choice(len(whole.train), 8, replace=False)
    targets = whole.train.targets.clone()
    targets[wrong] = (targets[wrong] + 4) % 10
    return replace(whole, train=ImageSet(whole.train.images, targets)), whole, sorted(wrong.tolist())


def test_wrong_labels_are_found(flipped):
    wrong, whole, positions = flipped
    found = suspects(Gallery.of(wrong))
    names = {row["name"]: row["looks_like"] for row in found["images"]}
    hits = [k for k in positions if names.get(f"train {k}") == str(int(whole.train.targets[k]))]
    assert len(hits) >= 7
    assert len(names) <= 8 + 6
    assert found["accuracy"] > 90
    assert found["judged"] == len(wrong.train) + len(wrong.test)
    agreement = [row["agreement"] for row in found["images"]]
    assert agreement == sorted(agreement, reverse=True)
    assert min(agreement) >= 0.7


def test_features_of_a_network_are_taken_instead(flipped):
    wrong, whole, positions = flipped
    truth = torch.cat([whole.train.targets, whole.test.targets])
    generator = np.random.default_rng(0)
    features = np.eye(10)[truth] + 0.05 * generator.normal(size=(len(truth), 10))
    found = suspects(Gallery.of(wrong), features.astype(np.float32))
    assert found["by"] == "features"
    assert sorted(int(row["name"].split()[1]) for row in found["images"]) == positions


def test_small_classes_are_not_judged(tmp_path):
    found = suspects(Gallery.of(data.load(str(make_folder(tmp_path / "x", {"a": 10, "b": 5})))))
    assert (found["judged"], found["accuracy"], found["images"]) == (0, None, [])
    found = suspects(Gallery.of(data.load(str(make_folder(tmp_path / "y", {"a": 30, "b": 5})))))
    assert found["judged"] == 30


def test_neighbours_that_know_nothing_are_not_believed(digits):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 1, 8, 8), generator=generator, dtype=torch.uint8)
    noise = ImageSet(images, torch.arange(200) % 10)
    found = suspects(Gallery.of(replace(digits, train=noise, test=noise, train_indices=torch.arange(200))))
    assert found["accuracy"] < 50
    assert (found["judged"], found["images"]) == (0, [])


def test_large_sets_are_thinned(monkeypatch, flipped):
    monkeypatch.setattr("longtail.report.inspect_images.COMPARED", 400)
    gallery = Gallery.of(flipped[0])
    assert duplicates(gallery)["compared"] <= 400
    assert 300 <= suspects(gallery)["judged"] <= 400


def plain_found(**changes):
    found = {
        "train_images": 1000, "image_shape": [3, 32, 32], "files": None, "problems": [], "imbalance": 100.0,
        "groups": {name: {"classes": 3, "train": 10} for name in ("many", "medium", "few")},
        "duplicates": {"identical": [], "near": []}, "suspects": {"images": []}, "classes": [{"name": "a", "test": 50}],
    }  # fmt: skip
    return {**found, **changes}


def commands(found, named="my photos"):
    return [piece["command"] for piece in advice(found, named) if piece["command"]]


def test_advice_on_balanced_data_is_cross_entropy():
    assert commands(plain_found(imbalance=1.5)) == ["longtail train 'my photos' --method ce"]


def test_advice_on_few_photographs_is_a_pretrained_backbone():
    found = plain_found(files={}, image_shape=[3, 224, 224])
    frozen = commands(found)
    assert [command.split()[1] for command in frozen] == ["train", "compare", "compare"]
    assert all(command.endswith(" --backbone resnet50 --weights imagenet --freeze-backbone") for command in frozen)
    assert commands({**found, "imbalance": 1.5})[-1].endswith("--method ce" + frozen[0].partition("bsce")[2])
    assert "--weights" not in "".join(commands(plain_found(files={})))
    assert "--weights" not in "".join(commands({**found, "train_images": 10**6}))


def test_advice_on_lines_that_list_a_file_again():
    same = {"path": "a.jpg", "kind": "listed twice", "detail": "the same line again", "used": True}
    other = {"path": "b.jpg", "kind": "listed twice", "detail": "as 2, then as 3", "used": True}
    assert advice(plain_found(problems=[same]), "x")[0]["why"] == "1 line lists a file again: the first line counts"
    why = advice(plain_found(problems=[same, same, other]), "x")[0]["why"]
    assert why == (
        "3 lines list a file again: the first line counts; "
        "1 with another class or split, such as b.jpg as 2, then as 3: decide for one"
    )


def test_advice_on_rare_classes_is_what_the_results_support():
    rare = advice(plain_found(), "x")[-1]
    assert rare["command"] == "longtail compare x --methods bsce,ce+drw,ce+post-hoc-la --seeds 3"
    assert "3 classes have fewer than 20 images" in rare["why"]
    none = {**plain_found()["groups"], "few": {"classes": 0, "train": 0}}
    assert "ce+post-hoc-la" not in "".join(commands(plain_found(groups=none)))


def test_advice_on_labels_that_differ_in_case_only():
    classes = [{"name": name, "test": 50} for name in ("Oak", "ash", "oak")]
    assert advice(plain_found(classes=classes), "x")[0]["why"] == "'Oak' and 'oak' differ in case only: one class?"


def test_advice_on_thin_tests():
    assert (
        "1 class has fewer than 5 test images"
        in advice(plain_found(classes=[{"name": "a", "test": 2}]), "x")[-1]["why"]
    )


@pytest.mark.parametrize("imbalance", [1.5, 10.0, 100.0, None])
def test_the_advised_commands_can_be_typed(imbalance):
    found = plain_found(imbalance=imbalance, files={}, image_shape=[3, 224, 224])
    for command in commands(found):
        tool, verb, *words = shlex.split(command)
        arguments, options, _ = parse_open({"train": Train, "compare": Compare}[verb], verb, words)
        assert (tool, arguments.data, options) == ("longtail", "my photos", {})
        for name in (arguments.method,) if verb == "train" else arguments.methods.split(","):
            rehearse("photos", name, freeze_backbone=arguments.freeze_backbone)


def test_the_plot():
    counts, names = [5, 200, 50, 20], ["a$b", "b", "c", "d"]
    axes = class_count_bars(counts, names).axes[0]
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches}
    assert bars == {0: 200, 1: 50, 2: 20, 3: 5}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "c", "d", r"a\$b"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["many: 1", "medium: 2", "few: 1"]
    many = class_count_bars(list(range(1, 101)), [str(k) for k in range(100)]).axes[0]
    assert many.get_xlabel() == "100 classes, largest first"
    with pytest.raises(ValueError, match="2 counts for 1 names"):
        class_count_bars([1, 2], ["a"])


def flood(close):
    """Groups of two or more that hang together in a matrix of pairs, one neighbour after the other."""
    groups, left = [], set(range(len(close)))
    while left:
        group, edge = set(), {min(left)}
        while edge:
            group |= edge
            edge = {j for i in edge for j in np.flatnonzero(close[i]).tolist()} - group
        left -= group
        groups.append(sorted(group))
    return [group for group in groups if len(group) > 1]


@pytest.mark.parametrize("least", [0.995, 0.998, 0.9995])
def test_groups_of_near_doubles_are_those_that_hang_together(least, monkeypatch):
    monkeypatch.setattr(inspect_images, "_BLOCK", 64)  # groups reach over blocks
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = [group.tolist() for group in inspect_images._alike(rows, least)]
    assert found == flood(rows @ rows.T >= least)
    assert len(found) > 1


def test_a_camera_that_stands_still():
    """Thousands of nearly equal pictures are one group; that many pairs would take hours one by one."""
    rows = np.ones((5000, 4), dtype=np.float32) / 2
    (group,) = inspect_images._alike(rows, 0.998)
    assert group.tolist() == list(range(5000))
