"""The plane of a boundary: what is drawn is what the classifier says."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.report import TwoClasses, boundary_plane, decision_boundary


def draws(seed=0, count=60, width=16):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, width)), rng.standard_normal((2, width)), rng.random(count) < 0.4


@pytest.mark.parametrize("models", [1, 2])
def test_no_image_changes_sides_by_the_projection(models):
    features, weights, _ = draws()
    plane = boundary_plane(list(weights[:models]), features)
    np.testing.assert_allclose(plane @ plane.T, np.eye(2), atol=1e-12)
    for weight in weights[:models]:
        np.testing.assert_allclose((features @ plane.T) @ (plane @ weight), features @ weight)


def test_the_second_direction_of_one_model_has_the_most_spread_beside_the_first():
    features, (weight, _), _ = draws()
    features = features * np.where(np.arange(16) == 3, 20.0, 1.0)
    weight[3] = 0.0
    plane = boundary_plane([weight], features)
    assert abs(plane[1, 3]) > 0.99
    same = boundary_plane([weight, 2 * weight], features)
    np.testing.assert_allclose(plane, same)


def test_panels_show_regions_images_and_how_many_are_right():
    features, (weight, _), rare = draws()
    model = TwoClasses("ce", weight, 0.3, {"train": (features, rare), "test": (features[::-1], rare[::-1])})
    figure = decision_boundary([model], ("cat", "lynx"))
    left, right = figure.axes
    says_rare = features @ weight + 0.3 > 0
    shares = [100 * (says_rare == rare)[group].mean() for group in (~rare, rare)]
    assert left.get_title() == f"ce, train\n{shares[0]:.0f} % of cat and {shares[1]:.0f} % of lynx right"
    assert right.get_title().startswith("ce, test")
    shown = [len(points.get_offsets()) for points in left.collections if len(points.get_offsets()) > 1]
    assert (int((~rare).sum()), int(rare.sum())) == tuple(shown[-2:])
    assert left.get_xlim() == right.get_xlim()


def test_nothing_to_draw_is_said():
    features, (weight, _), rare = draws()
    with pytest.raises(ValueError, match="one model or two"):
        decision_boundary([], ("a", "b"))
    with pytest.raises(ValueError, match="no train images of class 'a'"):
        decision_boundary([TwoClasses("ce", weight, 0.0, {"train": (features, rare | True)})], ("a", "b"))
    with pytest.raises(ValueError, match="same weight"):
        boundary_plane([np.zeros(16)], features)
