"""What a person looks at after a run: pictures of shot groups and of each class's gain."""

from longtail.report.fusion import fusion_forces, ratio_sweep
from longtail.report.plots import per_class_gain, shot_group_bars

__all__ = ["fusion_forces", "per_class_gain", "ratio_sweep", "shot_group_bars"]
