"""Example images, written into the page itself; the data set must be at hand for them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from longtail.data import LongTailData
from longtail.errors import LongtailError
from longtail.report.measure import data_of
from longtail.report.sections.markup import Markup, tag
from longtail.report.sections.study import Study

_SIDE = 96  # larger images are scaled down to this, and compressed


@dataclass(frozen=True)
class Examples:
    """The images of the runs' data set.

    Attributes:
        data: The data set, with the subset that the runs were trained on.
    """

    data: LongTailData

    def of_test(self, number: int, alt: str) -> Markup:
        """Return a test image as an element."""
        return _element(self.data.test.images[number], alt)

    def of_train(self, number: int, alt: str) -> Markup:
        """Return a training image as an element."""
        return _element(self.data.train.images[number], alt)

    def training_images(self, label: int, number: int) -> list[int]:
        """Return the first few training images of a class."""
        return [int(k) for k in (self.data.train.targets == label).nonzero().flatten()[:number]]


def find_examples(study: Study, root: str | Path | None) -> Examples | str:
    """Load the data set of the runs, or say why there are no images of it.

    Args:
        study: The runs.
        root: Folder of the data sets; None takes the usual one.
    """
    task = study.first.task
    try:
        data = data_of(study.first, root)
    except LongtailError:  # its words name folders of this machine, and the page may be sent to others
        return f"the data set {task.name} is not at hand where the page was made (--data-root names its folder)."
    targets = study.entries[0].answers[0].targets
    same = np.array_equal(data.test.targets.numpy(), targets) and data.class_names == task.class_names
    if not same or tuple(data.class_counts) != tuple(task.class_counts):
        return f"the data set {task.name} that is at hand is not the one that the runs were made with."
    if data.image_shape[0] not in (1, 3):
        return f"images of {data.image_shape[0]} channels cannot be shown."
    return Examples(data)


def _element(image: Tensor, alt: str) -> Markup:
    channels, height, width = image.shape
    pixels = image.numpy()
    picture = Image.fromarray(pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    small = max(height, width) <= _SIDE
    if not small:
        picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True) if small else picture.save(buffer, "JPEG", quality=80)
    kind = "png" if small else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    tiny = "tiny" if max(height, width) <= 16 else None
    return tag("img", src=source, alt=alt, title=alt, width="64", height=round(64 * height / width), class_=tiny)
