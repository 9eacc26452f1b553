import numpy as np
import pytest

from longtail.report import virtual_example_distribution

COUNTS = [4, 200, 50]  # not in order of size


def test_curves_run_from_head_to_tail_and_the_legend_has_group_means():
    axes = virtual_example_distribution({"BSCE": [64.0, 120.0, 70.0]}, COUNTS).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[200, 50, 4], [120, 70, 64]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["input: 200 / 50 / 4", "BSCE: 120 / 70 / 64"]
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("values", [[127.0, 127.0], [1.0, 1.0, 1.0]])
def test_examples_of_another_training_set_are_refused(values):
    with pytest.raises(ValueError, match="254 training images of 3 classes"):
        virtual_example_distribution({"CE": np.array(values)}, COUNTS)


def test_the_figure_can_be_written(tmp_path):
    virtual_example_distribution({}, COUNTS).savefig(tmp_path / "virtual.png")
    assert (tmp_path / "virtual.png").stat().st_size > 1000
