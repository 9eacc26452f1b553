"""The meta-gradient in one forward pass against the double backward of the published codes."""

from __future__ import annotations

import copy

import pytest
import torch
from meta_steps import COUNTS, apart, double_backward, pictures, residual, small, unreduced

from longtail.losses import CrossEntropyLoss, FocalLoss, LDAMLoss
from longtail.methods.meta import WeightRecord, forward, gains
from longtail.networks import build_network, tangent


@pytest.mark.parametrize("make", [small, residual])
@pytest.mark.parametrize(
    "loss", [CrossEntropyLoss(COUNTS), FocalLoss(COUNTS), LDAMLoss(COUNTS, s=3.0)], ids=["ce", "focal", "ldam"]
)
def test_one_forward_pass_gives_what_the_double_backward_gives(make, loss):
    network, batch, dev = make()
    eta, coefficients = 0.02, torch.rand(len(batch), dtype=torch.float64)
    slow = double_backward(network, batch, dev, unreduced(loss), unreduced(CrossEntropyLoss(COUNTS)), coefficients, eta)
    buffers = copy.deepcopy(dict(network.named_buffers()))
    passed = forward(network, batch, loss)
    once = copy.deepcopy(network.state_dict())
    fast = -eta * gains(network, passed, dev, loss, CrossEntropyLoss(COUNTS), coefficients=coefficients, eta=eta)
    assert apart(fast, slow) < 1e-10
    assert not fast.requires_grad
    assert any(not torch.equal(value, network.state_dict()[name]) for name, value in buffers.items())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in once.items())  # nothing moved since
    assert all(parameter.grad is None for parameter in network.parameters())


def test_under_bfloat16_the_products_are_those_of_float32_but_for_rounding(monkeypatch):
    torch.manual_seed(1)
    network, batch, dev = pictures(build_network("resnet20", 4, 1), torch.float32, size=64)
    loss, coefficients = CrossEntropyLoss(COUNTS), torch.ones(len(batch))

    def products(bfloat16):
        taken = []
        kept = tangent._convolution
        monkeypatch.setattr(tangent, "_convolution", lambda value, *rest: (taken.append(value), kept(value, *rest))[1])
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            passed = forward(network, batch, loss)
            out = gains(network, passed, dev, loss, loss, coefficients=coefficients, eta=1e-4)
        monkeypatch.setattr(tangent, "_convolution", kept)
        return out, taken

    exact, _ = products(False)
    rounded, taken = products(True)
    assert [value.dtype for value in taken] == [torch.bfloat16] * 19  # all are taken over from the pass
    assert rounded.dtype == torch.float32
    assert 0 < apart(rounded, exact) < 0.1


def test_what_is_not_finite_does_not_stop_the_record():
    """The loop says that a run diverged, at the epoch's end; a step of it must not fail in another way before."""
    record = WeightRecord(3, epochs=1)
    values = torch.tensor([float("nan"), float("inf"), -float("inf")])
    record.add(0, torch.tensor([0, 1, 2]), values, values)
    assert record.count.tolist() == [[1, 1, 1]]
    assert record.sizes.sum() == 3


def test_the_record_holds_sums_by_class_and_epoch():
    record = WeightRecord(3, epochs=2, first_epoch=8)
    terms = torch.tensor([0.0, 3e-6, -0.5])
    record.add(9, torch.tensor([0, 2, 2]), torch.tensor([1.0, 2.0, 3.0]), terms)
    assert record.count.tolist() == [[0, 0, 0], [1, 0, 2]]
    assert record.weight.tolist() == [[0, 0, 0], [1, 0, 5]]
    torch.testing.assert_close(record.term[1], torch.tensor([0, 0, 3e-6 - 0.5], dtype=torch.float64))
    assert record.sizes.sum(1).tolist() == [0, 3]
    assert record.sizes[1].nonzero().flatten().tolist() == [0, 64, 116]
    other = WeightRecord(3, epochs=2, first_epoch=8)
    other.load_state_dict(record.state_dict())
    assert torch.equal(other.weight, record.weight)
