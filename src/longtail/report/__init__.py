"""What a person looks at after a run: pictures of shot groups and of each class's gain."""

from longtail.report.plots import per_class_gain, shot_group_bars

__all__ = ["per_class_gain", "shot_group_bars"]
