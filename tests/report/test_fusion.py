import numpy as np
import pytest

from longtail.report import force_histograms, fusion_forces, ratio_sweep, sampled_forces


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


def test_each_pair_may_have_weights_and_a_mask_of_its_own():
    w_t, w_h, f_t, f_h, _ = draws(5)
    masks = np.random.default_rng(2).random((5, D)) < 0.3
    together = fusion_forces(w_t, w_h, f_t, f_h, masks)
    for k in range(5):
        alone = fusion_forces(w_t[k], w_h[k], f_t[k : k + 1], f_h[k : k + 1], masks[k])
        np.testing.assert_allclose([force[k] for force in together], np.concatenate(alone))


COUNTS = [100, 90, 80, 20, 20, 20, 20, 5, 3, 1]  # three classes of head, four of medium, three of tail


def classifier():
    rng = np.random.default_rng(3)
    targets = np.repeat(np.arange(10), COUNTS)
    means = rng.standard_normal((10, D))
    return means, means[targets] + 0.1 * rng.standard_normal((len(targets), D)), targets


def test_forces_are_sampled_between_head_and_tail_with_the_share_of_channels():
    weight, features, targets = classifier()
    forces = sampled_forces(weight, np.zeros(10), features, targets, COUNTS, 0.25)
    assert len(forces.first) == len(forces.second) == 25600
    # The classifier points at the class means: (w_t - w_h) . (f_t - f_h) is their squared distance, and a quarter of it
    # lies in the overwritten channels. Head classes come in proportion to their training images.
    tail, head = weight[7:].repeat(3, 0), np.tile(weight[:3], (3, 1))
    shares = np.tile([100, 90, 80], 3) / 810
    gap = float((shares * ((tail - head) ** 2).sum(1)).sum())
    assert (forces.second - forces.first).mean() == pytest.approx(gap, rel=0.03)
    assert -forces.first.mean() == pytest.approx(0.25 * gap, rel=0.05)
    again = sampled_forces(weight, np.zeros(10), features, targets, COUNTS, 0.25)
    np.testing.assert_array_equal(forces.first, again.first)
    none = sampled_forces(weight, np.zeros(10), features, targets, COUNTS, 0.0)
    assert (none.first == 0).all()
    assert not none.first_acts.any()
    with pytest.raises(ValueError, match="largest and of the smallest"):
        sampled_forces(weight, np.zeros(10), features[targets < 7], targets[targets < 7], COUNTS, 0.25)


@pytest.mark.parametrize("shift", [0.0, -10.0, 10.0])
def test_where_a_force_acts_it_is_positive_whatever_the_biases(shift):
    weight, features, targets = classifier()
    bias = np.where(np.arange(10) >= 7, shift, 0.0)  # in favour of the tail, or against it
    forces = sampled_forces(
        np.random.default_rng(5).standard_normal(weight.shape), bias, 5 * features, targets, COUNTS, 0.4
    )
    assert forces.first_acts.any()
    assert forces.second_acts.any()
    assert (forces.first[forces.first_acts] > 0).all()
    assert (forces.second[forces.second_acts] > 0).all()
    assert not (forces.first_acts & forces.second_acts).any()


def test_histograms_of_each_model_and_force():
    weight, features, targets = classifier()
    bias = np.zeros(10)
    models = {f"p {p}": sampled_forces(weight, bias, features, targets, COUNTS, p) for p in (0.25, 0.5)}
    figure = force_histograms(models)
    for axes, name in zip(figure.axes, ("first", "second"), strict=True):
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        for label, (model, forces) in zip(labels, models.items(), strict=True):
            acts = getattr(forces, f"{name}_acts")
            assert label.startswith(f"{model}: acts on {100 * acts.mean():.3g} % of pairs")
    with pytest.raises(ValueError, match="at least one model"):
        force_histograms({})
