import numpy as np
import pytest

from longtail.report import fusion_forces, ratio_sweep


def metrics(many, few, top1, medium=None):
    return {"many": many, "medium": medium, "few": few, "top1": top1}


def test_the_sweep_shows_each_group_s_mean_in_order_of_the_ratio():
    runs = {0.5: [metrics(60, 30, 45), metrics(62, 32, 47)], 0.0: [metrics(70, 20, 44)]}
    axes = ratio_sweep(runs).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "many": [[0.0, 70.0], [0.5, 61.0]],
        "few": [[0.0, 20.0], [0.5, 31.0]],
        "all": [[0.0, 44.0], [0.5, 46.0]],
    }
    for nothing in ({}, {0.1: []}):
        with pytest.raises(ValueError, match="at least one run for each ratio"):
            ratio_sweep(nothing)


D, REPLACED = 64, 16


def draws(count):
    rng = np.random.default_rng(0)
    mask = np.zeros(D, dtype=bool)
    mask[rng.permutation(D)[:REPLACED]] = True
    return (*rng.standard_normal((4, count, D)), mask)


def forces_of(w_t, w_h, f_t, f_h, mask):
    pairs = [fusion_forces(a, b, c[None], d[None], mask) for a, b, c, d in zip(w_t, w_h, f_t, f_h, strict=True)]
    first, second = np.array(pairs)[..., 0].T
    return first, second


def test_the_forces_follow_from_their_premises_without_exception():
    w_t, w_h, f_t, f_h, mask = draws(20_000)
    first, second = forces_of(w_t, w_h, f_t, f_h, mask)
    fused_tail, fused_head = np.where(mask, f_h, f_t), np.where(mask, f_t, f_h)

    def prefers_tail(features):
        return ((w_t - w_h) * features).sum(1) > 0

    tail_was_wrong, made_right = ~prefers_tail(f_t), prefers_tail(fused_tail)
    assert (tail_was_wrong & made_right).sum() > 1000
    assert (first[tail_was_wrong & made_right] > 0).all()
    tail_was_right, head_right = prefers_tail(f_t), ~prefers_tail(fused_head)
    assert (tail_was_right & head_right).sum() > 1000
    assert (second[tail_was_right & head_right] > 0).all()
    # The second force does need a tail sample that was right.
    assert (second[tail_was_wrong & head_right] < 0).sum() > 1000


def test_many_pairs_at_once():
    w_t, w_h, f_t, f_h, mask = draws(5)
    first, second = fusion_forces(w_t[0], w_h[0], f_t, f_h, mask)
    gap = (f_t - f_h) @ (w_t[0] - w_h[0])
    np.testing.assert_allclose(second - first, gap)
    assert first.shape == second.shape == (5,)
