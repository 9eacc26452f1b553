"""What is GCL's own: the noise, its size by class, and the focal factor."""

from __future__ import annotations

import math

import pytest
import torch
from loss_table import COUNTS, batch, value_and_grad

from longtail.losses import GCLLoss, cloud_noise, cloud_sizes, cross_entropy_loss, gcl_loss


def test_clouds_grow_from_the_largest_class_to_the_smallest():
    sizes = cloud_sizes([500, 50, 5])
    torch.testing.assert_close(sizes, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert cloud_sizes([7, 7, 7]).tolist() == [0, 0, 0]
    assert cloud_sizes([50, 10, 0]).tolist() == [0, 1, 1]


def test_noise_is_a_third_of_a_normal_cut_to_one():
    torch.manual_seed(0)
    noise = cloud_noise((200_000,))
    assert noise.abs().max() == 1
    # E|N(0, 1/9)| = sqrt(2 / pi) / 3 = 0.26596; the cut takes 0.0003 off.
    assert noise.abs().mean().item() == pytest.approx(0.2655, abs=0.0015)
    assert noise.mean().item() == pytest.approx(0, abs=0.003)


def test_noise_only_ever_lowers_and_spares_the_largest_class():
    cosines, targets = torch.zeros(400, 5, dtype=torch.float64), torch.zeros(400, dtype=torch.int64)
    noise = cloud_noise((400, 5)).double()
    with_noise = gcl_loss(cosines, targets, cloud_sizes(COUNTS), noise)
    # The targets are of the largest class, which keeps its logit; all rivals fall, so the loss does.
    assert (with_noise <= math.log(5)).all()
    assert torch.equal(with_noise, gcl_loss(cosines, targets, cloud_sizes(COUNTS), -noise))


def test_the_mean_shift_is_that_of_logit_adjustment():
    torch.manual_seed(1)
    shift = (0.5 * cloud_noise((100_000, 5)).abs() * cloud_sizes(COUNTS)).mean(0)
    torch.testing.assert_close(shift, 0.2655 * 0.5 * cloud_sizes(COUNTS), rtol=0.01, atol=1e-12)


def test_every_call_draws_anew_from_the_global_generator_and_evaluation_does_not():
    cosines, targets = batch()
    cosines = cosines.tanh()
    loss = GCLLoss(COUNTS)
    torch.manual_seed(3)
    first, second = loss(cosines, targets), loss(cosines, targets)
    torch.manual_seed(3)
    assert torch.equal(loss(cosines, targets), first)
    assert first != second
    loss.eval()
    assert torch.equal(loss(cosines, targets), loss(cosines, targets))
    assert loss(cosines, targets).item() == pytest.approx(cross_entropy_loss(30 * cosines, targets).mean().item())


def test_both_labels_of_a_mix_get_noise_of_their_own():
    """Mixing calls the loss on the logits stacked twice: the two halves must not share their draws."""
    cosines, _ = batch(size=50)
    torch.manual_seed(0)
    both = GCLLoss(COUNTS, reduction="none")(0.1 * cosines.repeat(2, 1).tanh(), torch.full((100,), 4))
    assert (both[:50] != both[50:]).all()


def test_the_focal_factor_carries_no_gradient():
    cosines, targets = batch()
    sizes, noise = cloud_sizes(COUNTS), torch.zeros(12, 5)
    value, grad = value_and_grad(lambda z: gcl_loss(z, targets, sizes, noise, s=2, m=0.1, gamma=1.0).sum(), cosines)
    plain = gcl_loss(cosines, targets, sizes, noise, s=2, m=0.1)
    factor = 1 - torch.exp(-plain)
    torch.testing.assert_close(value, (factor * plain).sum())
    _, plain_grad = value_and_grad(lambda z: gcl_loss(z, targets, sizes, noise, s=2, m=0.1).sum(), cosines)
    torch.testing.assert_close(grad, factor[:, None] * plain_grad)


@pytest.mark.parametrize("counts", [[7, 7, 7, 7, 7], [50, 10, 5, 1, 0]])
def test_finite_where_the_published_code_is_not(counts):
    cosines, targets = batch()
    value, grad = value_and_grad(lambda z: GCLLoss(counts)(z, targets), cosines)
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()


def test_negative_settings_are_refused():
    with pytest.raises(ValueError, match="noise_mul must be a finite number >= 0, got -1"):
        GCLLoss(COUNTS, noise_mul=-1)
