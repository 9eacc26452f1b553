import pytest

from longtail.report import decoupling_grid

ERRORS = {("ce", "ce"): 50.0, ("ce", "rs"): 40.0, ("rw", "ce"): 60.0, ("rs", "rw"): None}


def test_features_are_columns_and_classifiers_rows():
    axes = decoupling_grid(ERRORS).axes[0]
    texts = {tuple(int(p) for p in text.get_position()): text for text in axes.texts}
    assert {place: text.get_text() for place, text in texts.items() if text.get_text() != "n/a"} == {
        (0, 0): "50.00",
        (0, 2): "40.00",
        (1, 0): "60.00",
    }
    assert len(texts) == 9
    assert [text.get_text() for text in texts.values() if text.get_weight() == "bold"] == ["40.00"]
    assert axes.get_xlabel() == "features"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CE", "RW", "RS"]


def test_equal_errors_and_files(tmp_path):
    decoupling_grid({("ce", "ce"): 12.5}).savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no error rate"):
        decoupling_grid({("ce", "ce"): None})
