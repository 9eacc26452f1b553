"""The memory classifier of OLTR against its formula, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from longtail.networks import LinearHead
from longtail.networks.memory import MetaEmbeddingHead, squared_distances


def made(classes=4, width=3):
    torch.manual_seed(0)
    head = MetaEmbeddingHead(LinearHead(width, classes)).double()
    head.place_centroids(torch.randn(12, width, dtype=torch.float64), torch.arange(12) % classes)
    return head


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def formula(head, v):
    """Logits of one feature by the paper's sums."""
    centroids, width = head.centroids.tolist(), len(v)
    scores = [
        dot(w, v) + b for w, b in zip(head.hallucinator.weight.tolist(), head.hallucinator.bias.tolist(), strict=True)
    ]
    shares = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
    memory = [sum(p * c[i] for p, c in zip(shares, centroids, strict=True)) for i in range(width)]
    selector = [
        math.tanh(dot(w, v) + b)
        for w, b in zip(head.selector.weight.tolist(), head.selector.bias.tolist(), strict=True)
    ]
    nearest = min(math.dist(v, c) for c in centroids)
    x = [10 / nearest * (a + e * m) for a, e, m in zip(v, selector, memory, strict=True)]
    length = math.hypot(*x)
    return [16 * dot(w, x) / math.hypot(*w) / (1 + length) for w in head.weight.tolist()]


def test_logits_are_the_paper_s():
    head = made()
    features = torch.randn(5, 3, dtype=torch.float64)
    for row, logits in zip(features.tolist(), head(features).tolist(), strict=True):
        assert logits == pytest.approx(formula(head, row), abs=1e-10)


def test_no_gradient_of_the_logits_reaches_the_centroids():
    head = made()
    head(torch.randn(5, 3, dtype=torch.float64)).sum().backward()
    assert head.centroids.grad is None
    assert all(p.grad is not None for name, p in head.named_parameters() if name != "centroids")


def test_centroids_are_class_means_and_a_class_without_images_stays_at_zero():
    head = MetaEmbeddingHead(LinearHead(2, 3))
    head.place_centroids(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 5.0]]), torch.tensor([0, 0, 2]))
    assert head.centroids.tolist() == [[2.0, 3.0], [0.0, 0.0], [5.0, 5.0]]


def test_a_feature_on_a_centroid_is_finite():
    head = made()
    features = head.centroids.detach().clone().requires_grad_()
    logits = head(features)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(features.grad).all()


def test_the_distances_are_distances():
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(squared_distances(a, b), torch.cdist(a, b).square())
    assert squared_distances(a, a).min() >= 0


def test_logits_are_not_rounded_under_autocast():
    head = made().float()
    features = torch.randn(4, 3)
    exact = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(features), exact, rtol=1e-6, atol=1e-6)


def test_distances_are_not_rounded_under_autocast():
    features, centroids = torch.randn(4, 64), torch.randn(5, 64)
    exact = squared_distances(features, centroids)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(squared_distances(features, centroids), exact)
