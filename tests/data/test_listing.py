"""Folders, manifests and list files: which files, which class, which split, and every wrong form."""

from __future__ import annotations

import gzip

import pytest

from longtail.data.benchmarks import read_benchmark
from longtail.data.folder import read_folder
from longtail.data.listing import class_order, short_name, tidy_name
from longtail.data.lists import read_lists
from longtail.data.manifest import read_manifest
from longtail.errors import LongtailError, UsageError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def items(listing):
    return sorted(tuple(item) for item in listing.items)


def test_class_folders(tmp_path):
    listing = read_folder(touch(tmp_path, "b/1.jpg", "a/2.jpg", "a/deep/er/3.jpg", ".git/x", "a/.hidden"), "x")
    assert listing.classes == ("a", "b")
    assert items(listing) == [("a/2.jpg", "a", ""), ("a/deep/er/3.jpg", "a", ""), ("b/1.jpg", "b", "")]
    assert listing.problems == ()


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "test"), ("train", "test")),
        (("Training", "Validation"), ("train", "test")),
        (("train", "val", "test"), ("train", "val", "test")),
    ],
)
def test_split_folders(tmp_path, folders, splits):
    for folder in folders:
        touch(tmp_path, f"{folder}/a/1.jpg", f"{folder}/b/1.jpg")
    listing = read_folder(tmp_path, "x").settled()
    assert {item.split for item in listing.items} == set(splits)
    assert listing.classes == ("a", "b")
    assert bool(listing.notes) == ("Validation" in folders)


def test_train_may_be_a_class(tmp_path):
    listing = read_folder(touch(tmp_path, "train/1.jpg", "bus/1.jpg"), "x")
    assert listing.classes == ("bus", "train")
    both = read_folder(touch(tmp_path / "more", "train/1.jpg", "test/1.jpg"), "x")
    assert both.classes == ("test", "train")


@pytest.mark.parametrize(
    ("made", "told", "fix"),
    [
        (("test/1.jpg", "test/2.JPG"), "'train' holds class folders, but 'test' holds images", "/train as the data"),
        (("test/notes.txt",), "but 'test' holds none", "make 'test' hold class folders"),
        (("test/a/1.jpg", "labels/x.txt"), "but 'labels' beside it names no split", "move what is no split out of"),
    ],
)
def test_a_split_that_does_not_fit_is_not_taken_for_a_class(tmp_path, made, told, fix):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/labels.csv", *made)
    with pytest.raises(UsageError, match=told) as caught:
        read_folder(tmp_path, "x")
    assert fix in caught.value.fix


def test_train_with_folders_inside_beside_classes_is_a_class(tmp_path):
    listing = read_folder(touch(tmp_path, "train/steam/1.jpg", "bus/1.jpg"), "x")
    assert listing.classes == ("bus", "train")


def test_loose_files_and_empty_folders_are_known(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "notes.txt")
    (tmp_path / "c").mkdir()
    listing = read_folder(tmp_path, "x")
    assert listing.classes == ("a", "b", "c")
    assert [(p.path, p.kind) for p in listing.problems] == [("notes.txt", "outside")]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "data/a/1.jpg", "data/b/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "data/a/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/round").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/self").symlink_to("self")
    listing = read_folder(tmp_path / "data", "x")
    assert [item.path for item in listing.items] == ["a/1.jpg", "a/more/2.jpg", "a/self", "b/1.jpg"]
    assert [(p.path, p.kind) for p in listing.problems] == [("a/round", "not a file")]


RUN = ("config.yaml", "history.jsonl", "metrics.json")


@pytest.mark.parametrize("split", ["", "train/"])
def test_folders_of_runs_are_no_classes(tmp_path, split):
    touch(tmp_path, *(f"{split}{name}" for name in ("a/1.jpg", "b/1.jpg", "b/run/config.yaml", "b/run/history.jsonl")))
    touch(tmp_path, "test/a/1.jpg") if split else None
    touch(tmp_path, *(f"runs/{run}/{name}" for run in ("x", "grid/y") for name in RUN), "runs/grid/decoupling.png")
    listing = read_folder(tmp_path, "x")
    assert listing.classes == ("a", "b")
    assert [item.path for item in listing.items if item.split != "test"] == [f"{split}a/1.jpg", f"{split}b/1.jpg"]
    assert listing.problems == ()
    assert listing.notes[0] == "runs holds runs and is left out"


@pytest.mark.parametrize(
    "made",
    [
        ("c/config.yaml",),
        ("c/1.jpg", "c/run/config.yaml", "c/run/history.jsonl"),
        ("c/x/1.jpg", *(f"c/y/{n}" for n in RUN)),
    ],
)
def test_a_folder_that_also_holds_something_else_stays_a_class(tmp_path, made):
    listing = read_folder(touch(tmp_path, "a/1.jpg", "b/1.jpg", *made), "x")
    assert listing.classes == ("a", "b", "c")


@pytest.mark.parametrize("made", [(), ("a/1.jpg",), ("1.jpg", "2.jpg")])
def test_a_folder_that_is_no_data_set(tmp_path, made):
    with pytest.raises(LongtailError, match=r"no image found|only one class|outside class folders"):
        read_folder(touch(tmp_path, *made), "x").settled()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (("1.jpg",), "1 image lies outside class folders, and none in one"),
        (("1.jpg", "2.PNG", "x.txt"), "2 images lie outside class folders, and none in one"),
        (("x.txt",), "no image found"),
    ],
)
def test_images_outside_class_folders_are_counted(tmp_path, made, told):
    with pytest.raises(LongtailError, match=told):
        read_folder(touch(tmp_path, *made), "x").settled()


def test_only_test_images(tmp_path):
    listing = read_folder(touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"), "x")
    assert {item.split for item in listing.items} == {"train", "test"}
    (tmp_path / "list.csv").write_text("path,label,split\na,1,test\nb,2,val\n")
    with pytest.raises(LongtailError, match="no training images, only test, val"):
        read_manifest(tmp_path / "list.csv", "x").settled()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_manifest(tmp_path, separator):
    rows = [("label", "path", "note", "split"), ("cat", "a b.jpg", "", "Train"), ("dog", "/x/é.jpg", "", "validation")]
    text = "\n".join(separator.join(row) for row in rows)
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n\n")
    listing = read_manifest(tmp_path / "list.csv", "x")
    assert items(listing) == [("/x/é.jpg", "dog", "val"), ("a b.jpg", "cat", "train")]
    assert str(listing.full_path(listing.items[0])) == str(tmp_path / "a b.jpg")
    assert str(listing.full_path(listing.items[1])) == "/x/é.jpg"


def test_manifest_with_quotes_and_newlines(tmp_path):
    (tmp_path / "list.csv").write_text('path,label\n"a,\nb.jpg","x ""y"""\nc.jpg,z\n')
    assert items(read_manifest(tmp_path / "list.csv", "x")) == [("a,\nb.jpg", 'x "y"', ""), ("c.jpg", "z", "")]


def test_manifest_names_a_file_twice(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na,1\na,1\nb,2\nb,3\n")
    listing = read_manifest(tmp_path / "list.csv", "x")
    assert items(listing) == [("a", "1", ""), ("b", "2", "")]
    assert [(p.kind, p.detail) for p in listing.problems] == [
        ("listed twice", "the same line again"),
        ("listed twice", "as 2, then as 3"),
    ]
    assert all(problem.used for problem in listing.problems)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not nothing"),
        (b"a.jpg,cat\n", "not a.jpg, cat"),
        (b"path,label\n\n", "no image is listed below the header"),
        (b"path,label\na.jpg,b\no, 0.jpg,one\n", "line 3 has 3 columns, the header 2"),
        (b"path,label\n,cat\n", "line 2: path is empty"),
        (b"path,label\na.jpg\n", "line 2: label is empty"),
        (b"path,label,split\na,b,holdout\n", "line 2: unknown split 'holdout'"),
        (b"path,label,split\na,b,train\nc,d,\n", "line 3: split is empty"),
        (b"path,label\n\xff\xfe,x\n", "cannot be read as a CSV"),
        (b'path,label\n"a,b\n', "cannot be read as a CSV"),
    ],
)
def test_wrong_manifests(tmp_path, content, told):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(LongtailError, match=told):
        read_manifest(tmp_path / "list.csv", "x")


# The first lines of the published lists, and made-up ones of the same form for the others.
IMAGENET = {
    "train": "train/n01440764/n01440764_190.JPEG 0\ntrain/n01443537/n01443537_2772.JPEG 1\n",
    "val": "train/n01440764/n01440764_762.JPEG 0\ntrain/n01443537/n01443537_1029.JPEG 1\n",
    "test": "val/n01440764/ILSVRC2012_val_00029930.JPEG 0\nval/n01443537/ILSVRC2012_val_00002848.JPEG 1\n",
}


def write_lists(folder, stem, lists, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in lists.items():
        name = f"{stem}_{split}.txt"
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text)
    return folder / f"{stem}_train.txt"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("folder", ["imagenet-lt", "ImageNet_LT", "."])
def test_imagenet_lt(tmp_path, folder, packed):
    write_lists(tmp_path / folder, "ImageNet_LT", IMAGENET, packed)
    listing = read_benchmark("imagenet-lt", tmp_path).settled()
    assert listing.classes == ("n01440764", "n01443537")
    assert [item.split for item in listing.items] == ["train", "train", "val", "val", "test", "test"]
    assert listing.full_path(listing.items[0]) == tmp_path / folder / "train/n01440764/n01440764_190.JPEG"


def test_inaturalist(tmp_path):
    lists = {
        "train": "train_val2018/Plantae/7477/3b60c9486db1d2ee875f11a669fbde4a.jpg 2\n"
        "train_val2018/Aves/2788/aa.jpg 10\n",
        "val": "train_val2018/Plantae/7477/9f8ecb39e5f767e39e9b28e34488f179.jpg 2\n",
    }
    write_lists(tmp_path / "inat18", "iNaturalist18", lists)
    listing = read_benchmark("inat18", tmp_path).settled()
    assert listing.classes == ("Plantae/7477", "Aves/2788")  # in the order of their numbers
    assert [item.split for item in listing.items] == ["train", "train", "test"]
    assert "validation split is it" in listing.notes[0]


def test_lists_without_class_folders_have_numbered_classes(tmp_path):
    train = write_lists(tmp_path, "my", {"train": "a b.jpg 10\nc.jpg\t2\n\n", "test": "d.jpg 2\n"})
    listing = read_lists(train, "x")
    assert listing.classes == ("2", "10")
    assert items(listing) == [("a b.jpg", "10", "train"), ("c.jpg", "2", "train"), ("d.jpg", "2", "test")]
    shared = write_lists(tmp_path, "shared", {"train": "x/same/1.jpg 0\nx/same/2.jpg 1\n"})
    assert read_lists(shared, "x").classes == ("0", "1")


def test_a_file_in_two_lists(tmp_path):
    train = write_lists(tmp_path, "my", {"train": "a.jpg 0\nb.jpg 1\n", "test": "a.jpg 0\n"})
    problems = read_lists(train, "x").problems
    assert [(p.path, p.kind, p.detail) for p in problems] == [("a.jpg", "listed twice", "in train, then in test")]


def test_wrong_lists(tmp_path):
    with pytest.raises(LongtailError, match=r"places-lt: no Places_LT_train.txt in .*\(given as root\)"):
        read_benchmark("places-lt", tmp_path)
    (tmp_path / "names.txt").write_text("a 0\n")
    with pytest.raises(UsageError, match=r"must be called NAME_train\.txt"):
        read_lists(tmp_path / "names.txt", "x")
    train = write_lists(tmp_path, "my", {"train": "a.jpg 0\nb.jpg one\n"})
    with pytest.raises(LongtailError, match=r"line 2: .b\.jpg one. is not"):
        read_lists(train, "x")
    packed = write_lists(tmp_path, "cut", {"train": "a.jpg 0\n" * 100}, packed=True)
    whole = packed.with_name("cut_train.txt.gz")
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(LongtailError, match="cannot be read as a list"):
        read_lists(whole, "x")


def test_names(tmp_path):
    assert class_order(["b", "10", "9"]) == ("10", "9", "b")
    assert class_order(["10", "9", "9"]) == ("9", "10")
    assert tidy_name("caf\udce9") == "caf\ufffd"
    assert short_name(tmp_path / "my photos!", ()) == "my-photos"
    assert short_name(tmp_path / "digits", ("digits",)) == "digits-images"
    assert short_name(tmp_path / "???", ()) == "images"
