"""Data sets, long-tailed subsets and dev splits; images stay in memory as uint8."""

from longtail.data.imageset import ImageSet, LongTailData
from longtail.data.load import DATASETS, load
from longtail.data.splits import dev_split, long_tail_counts, long_tail_indices, longtail_da_indices

__all__ = [
    "DATASETS",
    "ImageSet",
    "LongTailData",
    "dev_split",
    "load",
    "long_tail_counts",
    "long_tail_indices",
    "longtail_da_indices",
]
