"""Data sets, long-tailed subsets and dev splits; images stay in memory, or mapped from a decoded cache, as uint8."""

from longtail.data.decode import read_image
from longtail.data.imageset import ImageSet, LongTailData
from longtail.data.load import DATASETS, load
from longtail.data.origin import Origin
from longtail.data.problems import Problem
from longtail.data.splits import dev_split, long_tail_counts, long_tail_indices, longtail_da_indices

__all__ = [
    "DATASETS",
    "ImageSet",
    "LongTailData",
    "Origin",
    "Problem",
    "dev_split",
    "load",
    "long_tail_counts",
    "long_tail_indices",
    "longtail_da_indices",
    "read_image",
]
