"""The normalised multi-head classifier against its formula, element by element in float64."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from longtail import UsageError
from longtail.networks import build_network
from longtail.networks.causal import CausalNormHead, build_two_tailed_network


def formula(head, x, alpha):
    """Logits of one image by the paper's sums."""
    size = head.in_features // head.heads
    logits = []
    for weight in head.weight.tolist():
        total = 0.0
        for h in range(head.heads):
            part = slice(h * size, (h + 1) * size)
            xs, ws, ds = x[part], weight[part], head.mean.tolist()[part]
            x_norm, w_norm, d_norm = (math.sqrt(sum(v * v for v in values)) for values in (xs, ws, ds))
            direction = [v / x_norm for v in xs]
            if alpha and d_norm:
                cosine = sum(a * b for a, b in zip(xs, ds, strict=True)) / (x_norm * d_norm)
                direction = [v - alpha * cosine * d / d_norm for v, d in zip(direction, ds, strict=True)]
            total += sum(a * b for a, b in zip(ws, direction, strict=True)) / (w_norm + head.gamma)
        logits.append(head.tau / head.heads * total)
    return logits


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_logits_are_the_paper_s(heads, alpha):
    torch.manual_seed(0)
    head = CausalNormHead(6, 4, heads=heads, alpha=alpha).double()
    features = torch.randn(5, 6, dtype=torch.float64)
    trained = head(features)
    evaluated = head.eval()(features)
    for row, plain, adjusted in zip(features.tolist(), trained.tolist(), evaluated.tolist(), strict=True):
        assert plain == pytest.approx(formula(head, row, 0.0), abs=1e-12)
        assert adjusted == pytest.approx(formula(head, row, alpha), abs=1e-12)


def test_the_common_direction_is_the_running_sum_of_batch_means():
    head = CausalNormHead(4, 3, mu=0.9)
    first, second = torch.randn(5, 4), torch.randn(7, 4)
    head(first)
    head(second)
    torch.testing.assert_close(head.mean, 0.9 * first.mean(0) + second.mean(0))
    before = head.mean.clone()
    with torch.no_grad():
        head(first)  # not a step
    head.eval()(first)
    assert torch.equal(head.mean, before)
    assert "mean" in head.state_dict()


def test_what_all_images_share_is_gone_at_alpha_one():
    head = CausalNormHead(6, 4, heads=2, alpha=1.0)
    common = torch.randn(6)
    head(common.expand(3, 6))
    torch.testing.assert_close(head.eval()(2 * common[None]), torch.zeros(1, 4), atol=1e-5, rtol=0)
    head.alpha = 0.0  # can be changed after the training
    assert head(common[None]).abs().max() > 0.1


def test_an_untrained_head_and_empty_features_have_finite_logits():
    head = CausalNormHead(4, 3).eval()
    assert head(torch.zeros(2, 4)).eq(0).all()


def test_logits_are_not_rounded_under_autocast():
    head = CausalNormHead(8, 3).eval()
    features = torch.randn(4, 8)
    exact = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(features), exact)


def test_two_tails_double_the_features_behind_one_trunk():
    torch.manual_seed(0)
    plain = build_network("resnet32", 10)
    torch.manual_seed(0)
    network = build_two_tailed_network("resnet32", 10)
    plain.eval()
    network.eval()
    assert network.num_features == 128
    images = torch.randn(2, 3, 32, 32)
    assert network(images).shape == (2, 10)
    assert network.backbone.feature_map(images).shape == (2, 128, 8, 8)
    torch.testing.assert_close(network.features(images)[:, :64], plain.features(images))


def test_heads_that_do_not_divide_the_features_are_refused():
    with pytest.raises(UsageError, match="3 heads do not divide 64 features"):
        build_network("resnet32", 10, head=partial(CausalNormHead, heads=3))
