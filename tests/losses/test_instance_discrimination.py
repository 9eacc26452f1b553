import math

import pytest
import torch
import torch.nn.functional as F

from longtail.losses import instance_discrimination_loss


def units(count, seed):
    drawn = torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=1)


QUERIES, KEYS, QUEUE = units(4, 0), units(4, 1), units(9, 2)


def slow(temperature, left_out):
    """MoCo's equation 1, term by term."""
    losses = []
    for b in range(4):
        positive = math.exp(float(QUERIES[b] @ KEYS[b]) / temperature)
        others = [math.exp(float(QUERIES[b] @ QUEUE[k]) / temperature) for k in range(9) if not left_out[b][k]]
        losses.append(-math.log(positive / (positive + sum(others))))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_is_the_papers(temperature, masked):
    own = torch.arange(4)[:, None] == torch.arange(9) % 5 if masked else torch.zeros(4, 9, dtype=torch.bool)
    value = instance_discrimination_loss(QUERIES, KEYS, QUEUE, temperature, own if masked else None)
    torch.testing.assert_close(value, slow(temperature, own), rtol=1e-12, atol=0)


def test_gradient_reaches_the_queries():
    def loss(queries):
        return instance_discrimination_loss(queries, KEYS, QUEUE)

    assert torch.autograd.gradcheck(loss, QUERIES.clone().requires_grad_())


def test_where_every_key_is_left_out_nothing_is_to_tell():
    queries = QUERIES.clone().requires_grad_()
    value = instance_discrimination_loss(queries, KEYS, QUEUE, left_out=torch.ones(4, 9, dtype=torch.bool))
    value.sum().backward()
    assert torch.equal(value, torch.zeros(4, dtype=torch.float64))
    assert torch.isfinite(queries.grad).all()


def test_cold_and_reduced_precision_do_not_overflow():
    value = instance_discrimination_loss(QUERIES.bfloat16(), -KEYS.bfloat16(), QUEUE.bfloat16(), 1e-4)
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    with torch.autocast("cpu", torch.bfloat16):
        inside = instance_discrimination_loss(QUERIES.float(), KEYS.float(), QUEUE.float())
    torch.testing.assert_close(inside, instance_discrimination_loss(QUERIES, KEYS, QUEUE).float())


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"queries and keys must be \(B, d\)"):
        instance_discrimination_loss(QUERIES, KEYS[:3], QUEUE)
    with pytest.raises(ValueError, match=r"the queue \(K, d\)"):
        instance_discrimination_loss(QUERIES, KEYS, QUEUE[:, :5])
