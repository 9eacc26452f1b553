"""The picture of learned weights: what it reads from a run, and what it draws."""

from __future__ import annotations

import numpy as np
import pytest

import longtail
from longtail import data as datasets
from longtail.cli.main import main
from longtail.report import LearnedWeights, learned_weights, weights_over_training


def test_weights_of_a_run_are_read_and_drawn(plain_run, tmp_path, capsys):
    data = datasets.load("digits", imbalance=10, dev_per_class=2)
    options = {**plain_run, "epochs": 2, "start": 0.5, "strength": 0.3}
    run = longtail.train(data, "da-meta", out=tmp_path / "run", **options)
    learned = learned_weights(run)
    assert learned.epochs.tolist() == [2]
    assert learned.weight.shape == learned.term.shape == (1, 10)
    # Weight is class weight plus learned part, so that both differ by a number that falls with the class's size.
    assert np.all(np.diff((learned.weight - learned.term)[0]) > 0)
    assert learned.median_size > 1e-3
    assert main(["figure", "weights", str(run.path), "--out", str(tmp_path / "weights.png")]) == 0
    assert (tmp_path / "weights.png").stat().st_size > 1000
    plain = longtail.train(data, "ce", out=tmp_path / "ce", **{**plain_run, "epochs": 1})
    with pytest.raises(longtail.UsageError, match="learns no weights"):
        learned_weights(plain)


def made(same, size=4e-6):
    weight = np.array([[0.5, 1.0, 2.0], [0.6, 1.0, np.nan]])
    term = weight if same else weight - 1
    return LearnedWeights("da-meta", (200, 20, 0), np.array([161.0, 162.0]), weight, term, size)


@pytest.mark.parametrize(("same", "panels"), [(True, 1), (False, 2)])
def test_one_line_a_class_and_a_second_picture_for_a_part(same, panels):
    figure = weights_over_training(made(same))
    *axes, _ = figure.axes
    assert len(axes) == panels
    drawn = axes[0].get_lines()
    assert [line.get_xdata().tolist() for line in drawn] == [[161.0, 162.0]] * 3
    assert sorted(line.get_ydata()[0] for line in drawn) == [0.5, 1.0, 2.0]
    assert axes[-1].get_xlabel() == "epoch"
    if not same:
        assert "4.0e-06" in axes[1].get_title(loc="left")
