import numpy as np
import pytest
import torch

from longtail.losses import distillation_loss, flatten_probabilities, soft_targets, virtual_examples


def draw(*shape, scale=3.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def naive_softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def naive_target(z, temperature, power):
    """Equations 5, 13 and 14 of DiVE, one after the other."""
    t = naive_softmax(z / temperature) ** power
    return t / t.sum()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_targets_and_loss_are_the_papers(temperature, power):
    student, teacher = draw(5, 7), draw(5, 7).flip(0)
    targets = soft_targets(teacher, temperature, power)
    losses = distillation_loss(student, targets, temperature)
    for row in range(5):
        t = naive_target(teacher[row].numpy(), temperature, power)
        s = naive_softmax(student[row].numpy() / temperature)
        np.testing.assert_allclose(targets[row], t, rtol=1e-12)
        assert losses[row].item() == pytest.approx(temperature**2 * sum(t * np.log(t / s)), rel=1e-12)


def test_a_power_of_one_half_is_a_doubled_temperature():
    logits = draw(20, 10)
    torch.testing.assert_close(soft_targets(logits, 3.0, 0.5), soft_targets(logits, 6.0), rtol=0, atol=0)
    torch.testing.assert_close(flatten_probabilities(logits.softmax(-1), 1.0, 0.5), soft_targets(logits, 2.0))


def test_flattening_given_probabilities_equals_flattening_logits():
    logits = draw(20, 10)
    torch.testing.assert_close(flatten_probabilities(logits.softmax(-1), 3.0, 0.5), soft_targets(logits, 3.0, 0.5))


def test_tiny_temperatures_of_given_probabilities_decide():
    given = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
    decided = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert torch.equal(flatten_probabilities(given, 1e-3), decided)
    assert torch.equal(flatten_probabilities(torch.full((1, 4), 0.25), 1e-3), torch.full((1, 4), 0.25))


def test_heat_flattens_and_cold_decides():
    logits = draw(20, 10)
    torch.testing.assert_close(soft_targets(logits, 1e9), torch.full((20, 10), 0.1, dtype=torch.float64))
    cold = soft_targets(logits, 1e-3)
    torch.testing.assert_close(cold.max(-1).values, torch.ones(20, dtype=torch.float64))
    assert torch.equal(cold.argmax(-1), logits.argmax(-1))


def test_virtual_examples_sum_to_the_images_and_flatten_with_heat():
    logits = draw(50, 10)
    for temperature in (1.0, 3.0, 1e9):
        assert virtual_examples(logits, temperature).sum().item() == pytest.approx(50)
    torch.testing.assert_close(virtual_examples(logits, 1e9), torch.full((10,), 5.0, dtype=torch.float64))
    sure = 1e3 * torch.eye(10)[[0, 0, 0, 7]]
    assert virtual_examples(sure).tolist() == [3.0, 0, 0, 0, 0, 0, 0, 1.0, 0, 0]


def test_gradient_of_kl_is_that_of_cross_entropy_and_a_copy_costs_nothing():
    student, targets = draw(4, 6).requires_grad_(), soft_targets(draw(4, 6).flip(0), 2.0)
    (ours,) = torch.autograd.grad(distillation_loss(student, targets, 2.0).sum(), student)
    cross_entropy = -4 * (targets * (student / 2).log_softmax(-1)).sum()
    (theirs,) = torch.autograd.grad(cross_entropy, student)
    torch.testing.assert_close(ours, theirs)
    copy = distillation_loss(student, soft_targets(student.detach(), 2.0), 2.0)
    torch.testing.assert_close(copy, torch.zeros(4, dtype=torch.float64))


def test_sure_teachers_and_reduced_precision_stay_finite():
    student = torch.randn(3, 5, dtype=torch.bfloat16, requires_grad=True)
    targets = soft_targets(torch.tensor([[1e4, 0.0, 0, 0, 0]] * 3, dtype=torch.bfloat16))
    losses = distillation_loss(student, targets)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert torch.isfinite(losses).all()
    assert torch.isfinite(student.grad).all()
    one_hot = torch.eye(5)[:3]
    torch.testing.assert_close(flatten_probabilities(one_hot, 3.0, 0.5), one_hot)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        distillation_loss(torch.zeros(3, 5), torch.zeros(5))
