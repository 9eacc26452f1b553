"""The published benchmarks that are files: ImageNet-LT, Places-LT, iNaturalist 2017 and 2018."""

from __future__ import annotations

import os
from dataclasses import dataclass

from longtail.data.annotations import read_annotations
from longtail.data.listing import Listing
from longtail.data.lists import existing, read_lists
from longtail.data.root import data_root
from longtail.errors import LongtailError


@dataclass(frozen=True)
class _Benchmark:
    """Where a benchmark's files lie, and which of them say what its images are.

    Attributes:
        folders: Names under which the folder of the data sets may have it.
        lists: The training list, or the annotations of the training images; the first that is there is read.
        source: Where they come from.
    """

    folders: tuple[str, ...]
    lists: tuple[str, ...]
    source: str


_OLTR = "the lists are linked from github.com/zhmiao/OpenLongTailRecognition-OLTR"
_BENCHMARKS = {
    "imagenet-lt": _Benchmark(("imagenet-lt", "ImageNet_LT", "ImageNet-LT"), ("ImageNet_LT_train.txt",), _OLTR),
    "places-lt": _Benchmark(("places-lt", "Places_LT", "Places-LT"), ("Places_LT_train.txt",), _OLTR),
    "inat17": _Benchmark(
        ("inat17", "iNaturalist17", "inat2017"),
        ("train2017.json",),
        "the annotations are linked from github.com/visipedia/inat_comp, 2017",
    ),
    "inat18": _Benchmark(
        ("inat18", "iNaturalist18", "inat2018"),
        ("iNaturalist18_train.txt", "train2018.json"),
        "the lists are in github.com/facebookresearch/classifier-balancing, data/iNaturalist18",
    ),
}
FILE_DATASETS = tuple(_BENCHMARKS)
"""Names of the published benchmarks that are files."""


def read_benchmark(name: str, root: str | os.PathLike[str] | None) -> Listing:
    """List the files of a published benchmark: ``ROOT/imagenet-lt`` with its list files and its images.

    Args:
        name: One of `FILE_DATASETS`.
        root: Folder of the data sets; None takes ``LONGTAIL_DATA``, else ``./.data``.

    Raises:
        LongtailError: The training list is not there, or a list is damaged.
    """
    known = _BENCHMARKS[name]
    where, origin = data_root(root)
    for folder in (*(where / folder for folder in known.folders), where):
        for file in known.lists:
            found = existing(folder / file)
            if found is not None:
                return (read_annotations if file.endswith(".json") else read_lists)(found, name)
    raise LongtailError(
        f"{name}: no {' or '.join(known.lists)} in {(where / known.folders[0]).resolve()} ({origin})",
        fix=f"put the lists there, beside the folders of images that they name; {known.source}",
    )
