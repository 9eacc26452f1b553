"""Annotations as COCO has them: which images, which class, which split, and every wrong form."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtail import data
from longtail.data.annotations import read_annotations
from longtail.data.benchmarks import read_benchmark
from longtail.errors import LongtailError
from pictures import picture

CATEGORIES = [{"id": 10, "name": "fox"}, {"id": 9, "name": "hare"}, {"id": 4, "name": "never seen"}]


def write(path, images, categories=CATEGORIES, **more):
    """Write an annotation file; ``images`` are (file, its categories)."""
    content = {
        "images": [{"id": k, "file_name": file, "width": 9} for k, (file, _) in enumerate(images)],
        "annotations": [
            {"id": f"{k}-{place}", "image_id": k, "category_id": number}
            for k, (_, numbers) in enumerate(images)
            for place, number in enumerate(numbers)
        ],
        "categories": categories,
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_one_file_has_no_splits_and_only_classes_that_are_seen(tmp_path):
    path = write(tmp_path / "traps.json", [("a.jpg", [10]), ("b/c.jpg", [9]), ("d.jpg", [10, 10])])
    listing = read_annotations(path, "traps")
    assert listing.classes == ("hare", "fox")  # in the order of their numbers
    assert [tuple(item) for item in listing.items] == [
        ("a.jpg", "fox", ""),
        ("b/c.jpg", "hare", ""),
        ("d.jpg", "fox", ""),
    ]
    assert (listing.problems, listing.root) == ((), tmp_path)


def test_images_of_several_classes_and_of_none_are_left_out_by_name(tmp_path):
    path = write(tmp_path / "x.json", [("a.jpg", [10]), ("both.jpg", [10, 9]), ("none.jpg", []), ("a.jpg", [10])])
    listing = read_annotations(path, "x")
    assert [item.path for item in listing.items] == ["a.jpg"]
    assert [(p.path, p.kind, p.detail) for p in listing.problems] == [
        ("both.jpg", "several classes", "2 categories"),
        ("none.jpg", "no class", "no annotation"),
        ("a.jpg", "listed twice", "again in x.json"),
    ]


def test_a_training_file_brings_the_others(tmp_path):
    train = write(tmp_path / "instances_train2018.json", [("a.jpg", [10]), ("b.jpg", [9])])
    write(tmp_path / "instances_val2018.json", [("c.jpg", [9])])
    write(tmp_path / "instances_test2018.json", [("d.jpg", [])], categories=[])
    listing = read_annotations(train, "x")
    assert [(item.path, item.split) for item in listing.items] == [
        ("a.jpg", "train"),
        ("b.jpg", "train"),
        ("c.jpg", "val"),
    ]
    assert listing.notes == ("instances_test2018.json says no classes and is left out",)
    assert listing.problems == ()
    assert [item.split for item in listing.settled().items] == ["train", "train", "test"]


@pytest.mark.parametrize("place", [".", "images", "..", "../images"])
def test_images_are_found_where_such_collections_have_them(tmp_path, place):
    path = write(tmp_path / "annotations" / "x.json", [("one/a.jpg", [10]), ("b.jpg", [9])])
    image = tmp_path / "annotations" / place / "one" / "a.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(b"")
    listing = read_annotations(path, "x")
    assert listing.full_path(listing.items[0]).samefile(image)


def test_names_that_several_categories_have_are_told_apart(tmp_path):
    twice = [{"id": 1, "name": "fox"}, {"id": 2, "name": "fox"}, {"id": 3, "name": " "}]
    listing = read_annotations(write(tmp_path / "x.json", [("a", [1]), ("b", [2]), ("c", [3])], categories=twice), "x")
    assert listing.classes == ("fox (1)", "fox (2)", "3")


@pytest.mark.parametrize("name", ["inat17", "inat18"])
def test_inaturalist_as_it_is_published(tmp_path, name):
    year = name.replace("inat", "20")
    write(tmp_path / name / f"train{year}.json", [("train_val/Aves/a.jpg", [10]), ("train_val/Aves/b.jpg", [9])])
    write(tmp_path / name / f"val{year}.json", [("train_val/Aves/c.jpg", [9])])
    listing = read_benchmark(name, tmp_path).settled()
    assert (listing.name, listing.classes) == (name, ("hare", "fox"))
    assert [item.split for item in listing.items] == ["train", "train", "test"]


def test_a_missing_benchmark_says_which_files_would_do(tmp_path):
    with pytest.raises(LongtailError, match=r"no iNaturalist18_train\.txt or train2018\.json in"):
        read_benchmark("inat18", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as annotations"),
        ("\xff", "cannot be read as annotations"),
        ("[]", "'images' must be a list of objects with id and file_name"),
        ('{"images": [{"id": 1}]}', "'images' must be a list"),
        ('{"images": [], "annotations": {}}', "'annotations' must be a list"),
        ('{"images": [], "annotations": [3]}', "'annotations' must be a list"),
        ('{"images": []}', "no image has one category, of 0"),
        ('{"images": [{"id": 1, "file_name": "a"}]}', "no image has one category, of 1"),
    ],
)
def test_what_is_no_annotation_file(tmp_path, text, said):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(LongtailError, match=said):
        read_annotations(path, "x")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.floats() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "name"]), inner),
    max_leaves=4,
)


def rows(*keys):
    return st.lists(st.fixed_dictionaries({key: st.integers(0, 2) | ANY for key in keys}), max_size=4) | ANY


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({
    "images": rows("id", "file_name"), "annotations": rows("image_id", "category_id"), "categories": rows("id", "name"),
}))  # fmt: skip
def test_any_content_is_a_listing_or_an_error(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with suppress(LongtailError):
        listing = read_annotations(path, "x")
        assert {item.label for item in listing.items} == set(listing.classes)


def test_contradictions(tmp_path):
    one = [("a.jpg", [10])]
    with pytest.raises(LongtailError, match="image 7, which is not among the images"):
        read_annotations(write(tmp_path / "a.json", one, annotations=[{"image_id": 7, "category_id": 10}]), "x")
    with pytest.raises(LongtailError, match="category 11, which is not among the categories"):
        read_annotations(write(tmp_path / "b.json", [("a.jpg", [11])]), "x")
    with pytest.raises(LongtailError, match="category 10 has two names"):
        read_annotations(write(tmp_path / "c.json", one, categories=[*CATEGORIES, {"id": 10, "name": "dog"}]), "x")
    with pytest.raises(LongtailError, match="an id is no number and no text"):
        read_annotations(write(tmp_path / "d.json", one, annotations=[{"image_id": [1], "category_id": 10}]), "x")
    train = write(tmp_path / "train.json", one)
    write(tmp_path / "val.json", one, categories=[{"id": 10, "name": "dog"}])
    with pytest.raises(LongtailError, match="category 10 is 'dog', but elsewhere 'fox'"):
        read_annotations(train, "x")


def test_it_loads_and_is_split_like_any_other(tmp_path):
    files = [(f"{k}.png", [10 if k < 8 else 9]) for k in range(12)]
    for k, (file, _) in enumerate(files):
        picture(k // 8, k).save(tmp_path / file)
    loaded = data.load(str(write(tmp_path / "traps.json", files)), image_size=8)
    assert loaded.class_names == ("hare", "fox")
    assert len(loaded.train) + len(loaded.test) == 12
    assert loaded.name == "traps"
