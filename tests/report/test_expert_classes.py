import numpy as np
import pytest

from longtail.evaluation import expert_agreement
from longtail.report import class_accuracy_of_experts


def agreement(classes, experts=3):
    rng = np.random.default_rng(0)
    return expert_agreement(rng.standard_normal((experts, 200, classes)), rng.integers(classes, size=200))


@pytest.mark.parametrize("classes", [6, 40])
def test_each_expert_and_the_average_are_drawn_from_head_to_tail(classes):
    report = agreement(classes)
    counts = np.random.default_rng(1).permutation(np.linspace(1, 300, classes).astype(int))
    axes = class_accuracy_of_experts(report, counts).axes[0]
    order = np.argsort(-counts)
    lines = {line.get_label().partition(":")[0]: line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["average"], np.array(report["average"]["per_class"])[order])
    for number, expert in enumerate(report["experts"], 1):
        np.testing.assert_allclose(lines[f"expert {number}"], np.array(expert["per_class"])[order])
    assert {text.get_text() for text in axes.texts} == {"many", "medium", "few"}


def test_other_class_counts_are_refused():
    with pytest.raises(ValueError, match="6 classes, but 3 counts"):
        class_accuracy_of_experts(agreement(6), [3, 2, 1])
