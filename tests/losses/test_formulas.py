"""Each loss against its paper's formula, written out in float64 with explicit loops over samples and classes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_table import COUNTS, batch

from longtail.losses import (
    BalancedSoftmaxLoss,
    CBLoss,
    CDTLoss,
    CrossEntropyLoss,
    FocalLoss,
    LabelAwareSmoothingLoss,
    LabelSmoothingLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
    SoftmaxEqualizationLoss,
    VSLoss,
    cdt_temperatures,
    influence_balanced_loss,
    label_aware_smoothing,
    ldam_margins,
    rare_classes,
    softmax_equalization_loss,
)

C = len(COUNTS)
PRIOR = [n / sum(COUNTS) for n in COUNTS]


def softmax(z):
    total = sum(math.exp(v) for v in z)
    return [math.exp(v) / total for v in z]


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def focal_sigmoid(z, y, gamma):
    total = 0.0
    for c in range(C):
        p_t = sigmoid(z[c]) if c == y else 1 - sigmoid(z[c])
        total -= (1 - p_t) ** gamma * math.log(p_t)
    return total


def cross_entropy(z, y):
    return -math.log(softmax(z)[y])


def focal_softmax(z, y):
    p = softmax(z)[y]
    return -((1 - p) ** 1.7) * math.log(p)


def cb_weight(y, beta=0.99):
    raw = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    return raw[y] * C / sum(raw)


def ldam(z, y):
    scaled = [10 * v for v in z]
    scaled[y] -= 10 * 0.4 * (min(COUNTS) / COUNTS[y]) ** 0.25
    return cross_entropy(scaled, y)


def balanced_softmax(z, y):
    return -math.log(COUNTS[y] * math.exp(z[y]) / sum(n * math.exp(v) for n, v in zip(COUNTS, z, strict=True)))


def logit_adjustment(z, y):
    return cross_entropy([v + math.log(p**1.5 + 1e-12) for v, p in zip(z, PRIOR, strict=True)], y)


def smoothed(z, y, eps, spread_over_all):
    p = softmax(z)
    label = [eps / C if spread_over_all else eps / (C - 1)] * C
    label[y] = 1 - eps + eps / C if spread_over_all else 1 - eps
    return -sum(q * math.log(v) for q, v in zip(label, p, strict=True))


def las_eps(y):
    t = (COUNTS[y] - min(COUNTS)) / (max(COUNTS) - min(COUNTS))
    return 0.1 + (0.4 - 0.1) * math.sin(t * math.pi / 2)


def cdt(z, y):
    return cross_entropy([v / (max(COUNTS) / n) ** 0.25 for v, n in zip(z, COUNTS, strict=True)], y)


def vs(z, y):
    terms = zip(z, COUNTS, PRIOR, strict=True)
    return cross_entropy([v * (n / max(COUNTS)) ** 0.25 + 1.2 * math.log(p) for v, n, p in terms], y)


FORMULAS = {
    "cross_entropy": (CrossEntropyLoss(COUNTS), cross_entropy),
    "focal_softmax": (FocalLoss(COUNTS, 1.7), focal_softmax),
    "focal_sigmoid": (FocalLoss(COUNTS, 1.7, "sigmoid"), lambda z, y: focal_sigmoid(z, y, 1.7)),
    "cb_softmax": (CBLoss(COUNTS, 0.99), lambda z, y: cb_weight(y) * cross_entropy(z, y)),
    "cb_sigmoid": (CBLoss(COUNTS, 0.99, "sigmoid"), lambda z, y: cb_weight(y) * focal_sigmoid(z, y, 0)),
    "cb_focal": (CBLoss(COUNTS, 0.99, "focal", 0.5), lambda z, y: cb_weight(y) * focal_sigmoid(z, y, 0.5)),
    "ldam": (LDAMLoss(COUNTS, 0.4, 10), ldam),
    "balanced_softmax": (BalancedSoftmaxLoss(COUNTS), balanced_softmax),
    "logit_adjustment": (LogitAdjustmentLoss(COUNTS, 1.5), logit_adjustment),
    "label_smoothing": (LabelSmoothingLoss(COUNTS, 0.2), lambda z, y: smoothed(z, y, 0.2, True)),
    "las_all": (LabelAwareSmoothingLoss(COUNTS, 0.4, 0.1), lambda z, y: smoothed(z, y, las_eps(y), True)),
    "las_others": (
        LabelAwareSmoothingLoss(COUNTS, 0.4, 0.1, off_target="others"),
        lambda z, y: smoothed(z, y, las_eps(y), False),
    ),
    "cdt": (CDTLoss(COUNTS, 0.25), cdt),
    "vs": (VSLoss(COUNTS, 0.25, 1.2), vs),
}


@pytest.mark.parametrize("name", FORMULAS)
@given(
    rows=st.lists(st.lists(st.floats(-6, 6), min_size=C, max_size=C), min_size=1, max_size=4), shift=st.integers(0, 4)
)
@settings(max_examples=25)
def test_mean_loss_follows_the_formula(name, rows, shift):
    module, formula = FORMULAS[name]
    targets = [(i + shift) % C for i in range(len(rows))]
    expected = sum(formula(z, y) for z, y in zip(rows, targets, strict=True)) / len(rows)
    value = module(torch.tensor(rows, dtype=torch.float64), torch.tensor(targets))
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_softmax_equalization_follows_the_formula():
    logits, targets = batch()
    rare = rare_classes(COUNTS, 0.1)
    assert rare.tolist() == [False, False, True, True, True]
    drawn = torch.rand(logits.shape, generator=torch.Generator().manual_seed(5)) < 0.6
    losses = softmax_equalization_loss(logits, targets, rare, drawn)
    for i, y in enumerate(targets.tolist()):
        total = 0.0
        for k in range(C):
            w = 1 - float(drawn[i, k]) * float(COUNTS[k] / sum(COUNTS) < 0.1) * (k != y)
            total += w * math.exp(logits[i, k])
        assert losses[i].item() == pytest.approx(-math.log(math.exp(logits[i, y]) / total), rel=1e-12)


def test_a_dropped_class_gets_no_gradient_and_the_own_class_always_does():
    logits = torch.zeros(2, C, dtype=torch.float64, requires_grad=True)
    everything = torch.ones(2, C, dtype=torch.bool)
    losses = softmax_equalization_loss(logits, torch.tensor([0, 4]), rare_classes(COUNTS, 0.1), everything)
    losses.sum().backward()
    assert (logits.grad != 0).tolist() == [[True, True, False, False, False], [True, True, False, False, True]]


def test_seql_draws_per_sample_and_class_with_probability_gamma():
    # Equal logits tell how many classes are left: loss = log(kept), with 2 frequent classes always kept.
    n, gamma = 4000, 0.7
    loss = SoftmaxEqualizationLoss(COUNTS, gamma, 0.1, reduction="none", generator=torch.Generator().manual_seed(0))
    kept = loss(torch.zeros(n, C), torch.zeros(n, dtype=torch.int64)).exp().round()
    share = torch.stack([(kept == 2 + k).float().mean() for k in range(4)])
    binomial = torch.tensor([math.comb(3, k) * (1 - gamma) ** k * gamma ** (3 - k) for k in range(4)])
    torch.testing.assert_close(share, binomial, rtol=0, atol=0.03)
    again = loss(torch.zeros(n, C), torch.zeros(n, dtype=torch.int64)).exp().round()
    assert not torch.equal(kept, again)


def test_all_classes_rare_and_always_drawn_is_loss_0():
    logits, targets = batch()
    assert SoftmaxEqualizationLoss(COUNTS, 1.0, 1.0)(logits, targets).item() == 0


def test_influence_balanced_follows_the_formula():
    logits, targets = batch()
    features = torch.rand(len(logits), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5
    losses = influence_balanced_loss(logits, targets, features, alpha=50.0)
    for i, y in enumerate(targets.tolist()):
        p = softmax(logits[i].tolist())
        distance = sum(abs(p[c] - (c == y)) for c in range(C))
        influence = distance * sum(abs(h) for h in features[i].tolist())
        expected = -math.log(p[y]) * 50.0 / (influence + 1e-3)
        assert losses[i].item() == pytest.approx(expected, rel=1e-11)


def test_margins_and_temperatures_by_hand():
    assert ldam_margins([1600, 100, 1], 0.5).tolist() == pytest.approx([0.5 / 1600**0.25, 0.5 / 100**0.25, 0.5])
    assert cdt_temperatures([1600, 100, 4], 0.5).tolist() == pytest.approx([1, 4, 20])


def test_an_absent_class_has_no_margin_and_the_largest_temperature():
    assert ldam_margins([16, 1, 0], 0.5).tolist() == [0.25, 0.5, 0]
    assert cdt_temperatures([16, 1, 0], 0.5).tolist() == [1, 4, 4]


def test_smoothing_shapes_are_ordered_and_meet_at_both_ends():
    concave, linear, convex = (
        label_aware_smoothing([101, 51, 1], 0.4, 0.1, s) for s in ("concave", "linear", "convex")
    )
    for shape in (concave, linear, convex):
        assert shape[0].item() == pytest.approx(0.4)
        assert shape[2].item() == pytest.approx(0.1)
    assert linear[1].item() == pytest.approx(0.25)
    assert concave[1].item() == pytest.approx(0.1 + 0.3 * math.sin(math.pi / 4))
    assert convex[1].item() == pytest.approx(0.1 + 0.3 * (1 + math.sin(1.5 * math.pi + math.pi / 4)))
