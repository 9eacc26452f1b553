import numpy as np
import pytest

from longtail.report import per_class_gain, shot_group_bars


def metrics(method, per_class, counts=(200, 50, 4), **groups):
    return {"method": method, "per_class": per_class, "class_counts": list(counts), **groups}


def test_bars_show_mean_and_spread_over_seeds_and_leave_empty_groups_out():
    rows = [
        metrics("ce", [], many=90.0, medium=None, few=10.0),
        metrics("ce", [], many=92.0, medium=None, few=14.0),
        metrics("bsce", [], many=80.0, medium=None, few=60.0),
    ]
    axes = shot_group_bars(rows).axes[0]
    bars = [container for container in axes.containers if hasattr(container, "patches")]
    assert [[bar.get_height() for bar in group] for group in bars] == [[91.0, 80.0], [12.0, 60.0]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["many", "few"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ce", "bsce"]
    low, high = bars[1].errorbar.lines[2][0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * np.std([10, 14], ddof=1))


def test_of_one_seed_no_spread_is_drawn():
    axes = shot_group_bars([metrics("ce (lr 0.1)", [], many=90.0, medium=50.0, few=10.0)]).axes[0]
    bars = [container.errorbar for container in axes.containers if hasattr(container, "patches")]
    drawn = [cap.get_ydata() for bar in bars for cap in bar.lines[1]]
    drawn += [segment for bar in bars for segment in bar.lines[2][0].get_segments()]
    assert len(bars) == 3
    assert not any(np.isfinite(np.asarray(values, dtype=float)).any() for values in drawn)
    assert axes.get_xticklabels()[0].get_text() == "ce\n(lr 0.1)"


def test_gain_is_the_difference_of_seed_means_at_each_class_count():
    run = [metrics("bsce", [80.0, 70.0, None]), metrics("bsce", [90.0, 60.0, None])]
    axes = per_class_gain(run, [metrics("ce", [95.0, 50.0, None])]).axes[0]
    points = np.ma.filled(axes.collections[1].get_offsets(), np.nan)
    np.testing.assert_allclose(points, [[200, -10], [50, 15], [np.nan, np.nan]])  # the third class has no test image
    assert axes.get_ylabel() == "bsce minus ce (points)"


def test_runs_of_different_training_sets_are_refused():
    with pytest.raises(ValueError, match="different class counts"):
        per_class_gain([metrics("bsce", [1, 2, 3])], [metrics("ce", [1, 2, 3], counts=(100, 50, 4))])


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no runs"):
        shot_group_bars([])
    with pytest.raises(ValueError, match="at least one"):
        per_class_gain([], [metrics("ce", [1, 2, 3])])


def test_the_figure_can_be_written(tmp_path):
    shot_group_bars([metrics("ce", [], many=90.0, medium=50.0, few=10.0)]).savefig(tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 1000
