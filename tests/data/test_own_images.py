"""Own images end to end: split, classes, sizes, fingerprint, development sets, and every bad file at once."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from longtail import data
from longtail.data import decode, read_image
from longtail.data.photos import default_size
from longtail.data.problems import alike
from longtail.errors import LongtailError, UsageError
from pictures import jpeg_bytes, make_folder, picture, png_that_says

COUNTS = {"red": 20, "green": 10, "blue": 5, "one": 1}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos", COUNTS)


def contents(images):
    return Counter(
        (image.numpy().tobytes(), int(label)) for image, label in zip(images.images, images.targets, strict=True)
    )


def test_a_folder(folder):
    loaded = data.load(str(folder))
    assert loaded.name == "photos"
    assert loaded.class_names == ("blue", "green", "one", "red")
    assert loaded.class_counts == [4, 8, 1, 16]
    assert torch.bincount(loaded.test.targets, minlength=4).tolist() == [1, 2, 0, 4]
    assert (loaded.imbalance, loaded.profile, loaded.image_shape) == (16.0, "natural", (3, 16, 16))
    assert loaded.train_indices.tolist() == list(range(29))
    assert "no test split: 7 of 36 images are held out" in loaded.origin.notes[0]
    assert [(p.path, p.kind) for p in loaded.origin.problems] == [("one", "no test image")]
    for split, images in (("train", loaded.train), ("test", loaded.test)):
        files = loaded.origin.files[split]
        assert len(files) == len(images)
        for file, image, label in zip(files, images.images, images.targets, strict=True):
            assert loaded.class_names[label] == file.path.split("/")[0]
            assert (read_image(folder / file.path, 16) == image.numpy()).all()
            assert file[2:] == (20, 16, "RGB", "PNG")


def test_the_same_everywhere(folder, tmp_path):
    """Names, dates, places and the file system's order change neither the split nor a row."""
    one = data.load(str(folder))
    other = tmp_path / "elsewhere" / "photos"
    for k, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, other / path.parent.name / f"{k}.png")
    two = data.load(str(other))
    assert one.origin.fingerprint == two.origin.fingerprint
    for split in ("train", "test"):
        assert torch.equal(getattr(one, split).images, getattr(two, split).images)
        assert torch.equal(getattr(one, split).targets, getattr(two, split).targets)
    assert one.origin.path != two.origin.path


@pytest.mark.parametrize("change", ["pixels", "class", "more", "less"])
def test_the_fingerprint_follows_the_contents(folder, change):
    before = data.load(str(folder)).origin.fingerprint
    if change == "pixels":
        picture(0, 99).save(folder / "red" / "000.png")
    elif change == "class":
        (folder / "red" / "000.png").rename(folder / "green" / "moved.png")
    elif change == "more":
        picture(0, 99).save(folder / "red" / "new.png")
    else:
        (folder / "red" / "000.png").unlink()
    assert data.load(str(folder)).origin.fingerprint != before


def test_given_splits_stay(tmp_path):
    make_folder(tmp_path / "x" / "train", {"a": 6, "b": 3})
    make_folder(tmp_path / "x" / "test", {"a": 2, "b": 2}, first=50)
    loaded = data.load(str(tmp_path / "x"))
    assert loaded.class_counts == [6, 3]
    assert len(loaded.test) == 4
    assert loaded.origin.notes == ()
    assert all(file.path.startswith("test/") for file in loaded.origin.files["test"])


def test_a_manifest(folder):
    lines = ["path,label,split"]
    for name in ("red", "green"):
        lines += [f"{name}/{k:03d}.png,{name},{'test' if k < 2 else 'train'}" for k in range(8)]
    (folder / "list.csv").write_text("\n".join(lines))
    loaded = data.load(str(folder / "list.csv"))
    assert (loaded.name, loaded.class_names, loaded.class_counts) == ("list", ("green", "red"), [6, 6])
    assert {file.path for file in loaded.origin.files["test"]} == {
        "red/000.png", "red/001.png", "green/000.png", "green/001.png"
    }  # fmt: skip


def test_a_published_benchmark(tmp_path):
    make_folder(tmp_path / "places-lt" / "train", {"airfield": 8, "alley": 4})
    paths = {c: [f"train/{c}/{k:03d}.png" for k in range(n)] for c, n in (("airfield", 8), ("alley", 4))}
    lists = {"train": slice(2, None), "val": slice(0, 1), "test": slice(1, 2)}
    for split, part in lists.items():
        lines = [f"{path} {k}" for k, c in enumerate(paths) for path in paths[c][part]]
        (tmp_path / "places-lt" / f"Places_LT_{split}.txt").write_text("\n".join(lines))
    loaded = data.load("places-lt", root=tmp_path, image_size=16)
    assert (loaded.name, loaded.class_names, loaded.class_counts) == ("places-lt", ("airfield", "alley"), [6, 2])
    assert (len(loaded.test), loaded.dev) == (2, None)
    dev = data.load("places-lt", root=tmp_path, image_size=16, dev_per_class=1)
    assert dev.dev.targets.tolist() == [0, 1]
    assert dev.class_counts == [6, 2]  # the validation split serves, and training keeps its images
    assert data.load("places-lt", root=tmp_path).image_shape == (3, 256, 256)
    with pytest.raises(UsageError, match="class 'airfield' has 1 validation images, 2 are needed"):
        data.load("places-lt", root=tmp_path, image_size=16, dev_per_class=2)


@pytest.mark.parametrize("copied", [1 << 30, 0])
def test_a_dev_set_is_held_out_of_training(tmp_path, monkeypatch, copied):
    """``copied=0``: what does not fit into memory becomes a file beside the cache."""
    monkeypatch.setattr("longtail.data.cache._COPIED", copied)
    folder = make_folder(tmp_path / f"photos{copied}", {"a": 12, "b": 6})
    whole, cut = data.load(str(folder)), data.load(str(folder), dev_per_class=2)
    assert torch.bincount(cut.dev.targets).tolist() == [2, 2]
    assert contents(cut.train) + contents(cut.dev) == contents(whole.train)
    assert contents(cut.test) == contents(whole.test)
    assert len(cut.origin.files["train"]) == len(cut.train)
    again = data.load(str(folder), dev_per_class=2)
    assert torch.equal(again.train.images, cut.train.images)
    other = data.load(str(folder), dev_per_class=2, subset_seed=1)
    assert not torch.equal(other.dev.images, cut.dev.images)
    with pytest.raises(UsageError, match="class 'b' has 5 images, 6 are needed"):
        data.load(str(folder), dev_per_class=5)


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(8, 8)], 8), ([(5, 4)], 8), ([(31, 40)], 16), ([(32, 32)], 32), ([(500, 375)] * 3, 224),
        ([(4000, 3000)], 224), ([(30, 30), (100, 90), (100, 90)], 64),
    ],
)  # fmt: skip
def test_default_size(sizes, chosen):
    assert default_size(sizes) == chosen


def test_size_on_request(folder):
    assert data.load(str(folder), image_size=24).image_shape == (3, 24, 24)
    for wrong in (7, 5000):
        with pytest.raises(UsageError, match=f"image_size is {wrong}; it must be within 8..1024"):
            data.load(str(folder), image_size=wrong)


def test_wrong_use(folder, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="taken with the imbalance that it has"):
        data.load(str(folder), imbalance=10)
    with pytest.raises(UsageError, match="taken with the imbalance that it has"):
        data.load(str(folder), profile="step")
    with pytest.raises(UsageError, match="no such folder or file"):
        data.load(str(tmp_path / "nowhere"))
    (tmp_path / "data.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="neither a folder nor a list"):
        data.load(str(tmp_path / "data.bin"))
    with pytest.raises(UsageError, match="digits has images of one size"):
        data.load("digits", image_size=32)
    with pytest.raises(UsageError, match="unknown data set 'photo'"):
        data.load("photo")
    monkeypatch.chdir(folder.parent)
    assert data.load("photos").origin.path == str(folder)  # a folder by its bare name
    (folder.parent / "digits").mkdir()
    assert data.load("digits").origin is None  # known names come first


def test_missing_images_name_the_folder(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\nimages/a.jpg,x\nimages/b.jpg,y\n")
    with pytest.raises(LongtailError, match=r"none of 2 files can be read; the first: images/a.jpg: missing") as error:
        data.load(str(tmp_path / "list.csv"))
    assert f"relative to {tmp_path}" in error.value.fix


def test_nothing_to_test_or_train_on(tmp_path):
    with pytest.raises(LongtailError, match="no class has an image to spare"):
        data.load(str(make_folder(tmp_path / "x", {"a": 1, "b": 1})))
    folder = make_folder(tmp_path / "y", {"a": 4})
    (folder / "b").mkdir()
    with pytest.raises(LongtailError, match=r"1 class has readable training images; two are needed; 'b' has none$"):
        data.load(str(folder))
    (folder / "b" / "1.png").write_bytes(b"")
    (folder / "b" / "2.png").write_text("no image")
    with pytest.raises(LongtailError, match=r"; 'b' has none, its first problem is b/1\.png: empty file \(0 bytes\)$"):
        data.load(str(folder))
    for path in (folder / "b").iterdir():
        path.unlink()
    path = folder / "b" / "cut.png"
    picture(1, 0).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LongtailError, match=r"'b' has none, its first problem is b/cut\.png: damaged"):
        data.load(str(folder))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("Oak", "ash", "oak"), "'Oak' and 'oak' differ in case only: one class?"),
        (("oak", "oak "), "'oak' and 'oak ' differ in outer spaces only: one class?"),
        (("Oak", "oak", " oak"), "'Oak', 'oak' and ' oak' differ in case and outer spaces only: one class?"),
        (("A", "a", "B", "b"), "'A' and 'a' differ in case only: one class?; 1 more such"),
        (("oak", "oak tree", "oaks"), ""),
    ],
)
def test_names_that_differ_in_case_or_outer_spaces_only(names, told):
    assert alike(names) == told


ODD_NAMES = ("with space.png", "new\nline.png", "ünïcödé-日本.png", os.fsdecode(b"latin-\xe9.png"), "$(rm -rf).png")


@pytest.fixture
def hostile(tmp_path):
    """A folder with everything that can be wrong."""
    root = make_folder(tmp_path / "hostile", {"good": 10, "other class\n日本": 6, "one image": 1})
    bad = root / "good"
    for k, name in enumerate(ODD_NAMES):
        picture(0, 100 + k).save(bad / name, "PNG")
    (bad / "zero.jpg").write_bytes(b"")
    (bad / "cut.jpg").write_bytes(jpeg_bytes()[:-900])
    picture(0, 50).save(bad / "really-png.jpg", "PNG")
    Image.new("RGB", (1, 1), "red").save(bad / "dot.png")
    Image.new("RGB", (20000, 10), "red").save(bad / "line.png")
    (bad / "bomb.png").write_bytes(png_that_says(60000, 60000))
    (bad / "notes.txt").write_text("not an image")
    (bad / "around").symlink_to(root)
    (bad / "loop.png").symlink_to("loop.png")
    os.mkfifo(bad / "pipe.png")
    picture(0, 51).save(bad / "forbidden.png")
    (root / "nothing inside").mkdir()
    (root / "only rubbish").mkdir()
    (root / "only rubbish" / "a.jpg").write_bytes(b"rubbish")
    (root / "beside.jpg").write_bytes(b"x")
    return root


@pytest.fixture
def forbidden(monkeypatch):
    """Make one file unreadable; removing permissions does not stop a test that runs as root."""
    real = decode.Path.open

    def guarded(path, *args, **kwargs):
        if path.name == "forbidden.png":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(decode.Path, "open", guarded)


EXPECTED = {
    ("good/zero.jpg", "empty file"),
    ("good/cut.jpg", "damaged"),
    ("good/really-png.jpg", "wrong extension"),
    ("good/dot.png", "tiny"),
    ("good/line.png", "thin"),
    ("good/bomb.png", "too large"),
    ("good/notes.txt", "not an image"),
    ("good/around", "not a file"),
    ("good/loop.png", "not a file"),
    ("good/pipe.png", "not a file"),
    ("good/forbidden.png", "no access"),
    ("only rubbish/a.jpg", "not an image"),
    ("beside.jpg", "outside"),
    ("nothing inside", "empty class"),
    ("only rubbish", "empty class"),
    ("one image", "no test image"),
}


def test_a_hostile_folder(hostile, forbidden):
    loaded = data.load(str(hostile))
    assert {(p.path, p.kind) for p in loaded.origin.problems} == EXPECTED
    assert len(loaded.origin.problems) == len(EXPECTED)
    assert loaded.class_names == ("good", "one image", "other class\n日本")
    used = {file.path for part in loaded.origin.files.values() for file in part}
    assert {f"good/{name}" for name in ODD_NAMES} <= used
    assert len(used) == 10 + 6 + 1 + len(ODD_NAMES) + 3
    assert all(str(p).isprintable() and str(p).encode() for p in loaded.origin.problems)
    # What is behind a damaged file keeps its own pixels and class.
    for split, images in (("train", loaded.train), ("test", loaded.test)):
        for file, image, label in zip(loaded.origin.files[split], images.images, images.targets, strict=True):
            assert loaded.class_names[label] == file.path.split("/")[0]
            assert (read_image(hostile / file.path, 16) == image.numpy()).all()


def test_a_hostile_folder_with_strict(hostile, forbidden):
    with pytest.raises(LongtailError, match=rf"{len(EXPECTED)} problems \(.*1 damaged.*") as error:
        data.load(str(hostile), strict=True)
    assert len(str(error.value).splitlines()) == 2
    good = make_folder(hostile.parent / "fine", {"a": 4, "b": 4})
    assert data.load(str(good), strict=True).origin.problems == ()


def test_a_class_that_is_lost_in_decoding(tmp_path):
    """Its only training image has a good header and broken pixels: the class goes, its test images too."""
    make_folder(tmp_path / "x" / "train", {"a": 4, "b": 4, "c": 0})
    make_folder(tmp_path / "x" / "test", {"a": 2, "b": 2, "c": 2}, first=20)
    (tmp_path / "x" / "train" / "c" / "cut.jpg").write_bytes(jpeg_bytes()[:-900])
    loaded = data.load(str(tmp_path / "x"))
    assert loaded.class_names == ("a", "b")
    assert loaded.test.targets.tolist() == [0, 0, 1, 1]
    assert {(p.path, p.kind) for p in loaded.origin.problems} == {("train/c/cut.jpg", "damaged"), ("c", "empty class")}


def test_a_thousand_classes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 8, 8, 3), dtype=np.uint8)
    for k, image in enumerate(pixels):
        (tmp_path / "x" / f"class {k % 1000}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "x" / f"class {k % 1000}" / f"{k}.bmp")
    loaded = data.load(str(tmp_path / "x"), strict=True)
    assert loaded.num_classes == 1000
    assert loaded.class_counts == [1] * 1000
    assert torch.bincount(loaded.test.targets).tolist() == [1] * 1000
