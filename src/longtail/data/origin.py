"""Where a person's own images came from: kept beside them for reports and to run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from longtail.data.problems import Problem


class FileFacts(NamedTuple):
    """What is known of the file behind an image: path, digest of its bytes, size, colour mode and format."""

    path: str
    digest: str
    width: int
    height: int
    mode: str
    format: str


@dataclass(frozen=True)
class Origin:
    """The source of a data set that was read from image files.

    Attributes:
        path: The folder or list, absolute; or the name of a published benchmark.
        fingerprint: Digest of all contents with class and split; names, dates and places do not matter.
        image_size: Side of the images.
        cache: Folder of the decoded images.
        notes: What was decided while reading, in sentences.
        problems: What was wrong with single files and classes.
        files: The files behind the images of ``train`` and ``test``, in their order.
    """

    path: str
    fingerprint: str
    image_size: int
    cache: str
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    files: dict[str, tuple[FileFacts, ...]] = field(repr=False)
