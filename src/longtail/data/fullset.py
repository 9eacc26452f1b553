"""What every data set's reader returns: all its images, before a long tail is cut."""

from __future__ import annotations

from dataclasses import dataclass

from longtail.data.imageset import ImageSet


@dataclass(frozen=True)
class FullSet:
    """A whole data set.

    Attributes:
        train: All training images.
        test: The balanced test images.
        class_names: Name of each class, length C.
        mean: Mean of the pixels in 0..1, one a channel.
        std: Standard deviation of the pixels in 0..1, one a channel.
        default_imbalance: The imbalance factor where the caller names none.
        n_max: Most images that the largest class of a long tail may have; None: as many as every class has.
    """

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    default_imbalance: float
    n_max: int | None = None
