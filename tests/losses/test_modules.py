"""What every module promises: weights, dtypes, extreme logits, degenerate counts, state, errors."""

from __future__ import annotations

import copy

import pytest
import torch
from loss_table import COUNTS, MODULES, WEIGHTED_MODULES, batch, value_and_grad

from longtail import losses
from longtail.losses import (
    CBLoss,
    CDTLoss,
    FocalLoss,
    LabelAwareSmoothingLoss,
    LabelSmoothingLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
    SoftmaxEqualizationLoss,
    VSLoss,
    balanced_softmax_loss,
    cdt_loss,
    class_balanced_loss,
    cross_entropy_loss,
    effective_number_weights,
    influence_balanced_loss,
    label_smoothing_loss,
    ldam_loss,
    logit_adjusted_loss,
    sigmoid_focal_loss,
    softmax_equalization_loss,
    softmax_focal_loss,
    vs_loss,
)

every_module = pytest.mark.parametrize("name", MODULES)
C = len(COUNTS)


def extreme_logits() -> torch.Tensor:
    """Every pattern of -1e4, 0 and 1e4 over the first four classes."""
    values = torch.tensor([-1e4, 0.0, 1e4])
    patterns = torch.cartesian_prod(values, values, values, values)
    return torch.cat([patterns, torch.zeros(len(patterns), C - 4)], dim=1)


def test_the_table_of_these_tests_holds_every_loss():
    public = [getattr(losses, name) for name in losses.__all__]
    modules = {each for each in public if isinstance(each, type) and issubclass(each, losses.ClassCountLoss)}
    assert {type(make(COUNTS)) for make in MODULES.values()} == modules - {losses.ClassCountLoss}


@every_module
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_have_a_finite_loss_and_gradient(name, dtype):
    logits = extreme_logits().to(dtype)
    for y in range(C):
        targets = torch.full((len(logits),), y)
        value, grad = value_and_grad(lambda z, y=targets: MODULES[name](COUNTS)(z, y), logits)
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert grad.dtype == dtype
        assert torch.isfinite(grad).all()


@every_module
def test_autocast_changes_nothing(name):
    logits, targets = batch()
    logits = logits.bfloat16()
    plain, plain_grad = value_and_grad(lambda z: MODULES[name](COUNTS)(z, targets), logits)
    with torch.autocast("cpu", torch.bfloat16):
        value, grad = value_and_grad(lambda z: MODULES[name](COUNTS)(z, targets), logits)
    assert value.dtype == torch.float32
    assert torch.isfinite(grad).all()
    assert torch.equal(value, plain)
    assert torch.equal(grad, plain_grad)


ONES = torch.ones(C, dtype=torch.float64)
FUNCTIONS = {
    "cross_entropy": cross_entropy_loss,
    "softmax_focal": lambda z, y: softmax_focal_loss(z, y, 2.0),
    "sigmoid_focal": lambda z, y: sigmoid_focal_loss(z, y, 2.0),
    "class_balanced": lambda z, y: class_balanced_loss(z, y, "focal", 1.0, ONES),
    "ldam": lambda z, y: ldam_loss(z, y, ONES, 30.0),
    "balanced_softmax": lambda z, y: balanced_softmax_loss(z, y, ONES),
    "logit_adjusted": lambda z, y: logit_adjusted_loss(z, y, ONES),
    "softmax_equalization": lambda z, y: softmax_equalization_loss(z, y, ONES.bool(), z > 0),
    "label_smoothing": lambda z, y: label_smoothing_loss(z, y, ONES / 2),
    "cdt": lambda z, y: cdt_loss(z, y, ONES),
    "vs": lambda z, y: vs_loss(z, y, ONES, ONES),
    "influence_balanced": lambda z, y: influence_balanced_loss(z, y, z),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compute_half_precision_logits_in_float32(name):
    logits, targets = batch()
    function = FUNCTIONS[name]
    for half in (logits.bfloat16(), logits.half()):
        losses = function(half, targets)
        assert losses.shape == targets.shape
        assert losses.dtype == torch.float32
        assert torch.equal(losses, function(half.float(), targets))
    assert function(logits, targets).dtype == torch.float64


@every_module
def test_float32_agrees_with_float64(name):
    logits, targets = batch()
    exact, exact_grad = value_and_grad(lambda z: MODULES[name](COUNTS)(z, targets), logits)
    value, grad = value_and_grad(lambda z: MODULES[name](COUNTS)(z, targets), logits.float())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-4, atol=1e-6)


@every_module
def test_the_gradient_is_the_slope(name):
    logits, targets = batch(size=5)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: MODULES[name](COUNTS)(z, targets), logits)


@every_module
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # PyTorch's own, in its forward mode
def test_forward_mode_over_reverse_mode_works(name):
    # Meta-gradients take the derivative of a gradient this way.
    logits, targets = batch()
    loss = MODULES[name](COUNTS)
    state = None if getattr(loss, "generator", None) is None else loss.generator.get_state()

    def gradient(z):
        if state is not None:
            loss.generator.set_state(state)
        return torch.func.grad(lambda x: loss(x, targets))(z)

    direction = batch(seed=9)[0]
    _, tangent = torch.func.jvp(gradient, (logits,), (direction,))
    slope = (gradient(logits + 1e-5 * direction) - gradient(logits - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close(tangent, slope, rtol=1e-5, atol=1e-8)


@every_module
@pytest.mark.parametrize(
    "counts",
    [[50, 10, 3, 1, 0], [0, 50, 0, 3, 1], [1, 1, 1, 1, 1], [6, 6, 6, 6, 6], [0, 0, 9, 0, 0], [10**7, 1, 0, 5, 9]],
)
def test_degenerate_counts_stay_finite_even_with_absent_classes_as_labels(name, counts):
    logits, targets = batch()
    for labels in (targets, torch.zeros_like(targets), torch.full_like(targets, 4)):
        value, grad = value_and_grad(lambda z, y=labels: MODULES[name](counts)(z, y), logits.float())
        assert torch.isfinite(value)
        assert torch.isfinite(grad).all()


@every_module
def test_mixed_labels_are_two_calls_or_one_weighted_call(name):
    logits, targets = batch()
    other = targets.roll(1)
    lam = torch.rand(len(targets), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    n = len(targets)
    unreduced = MODULES[name](COUNTS, reduction="none")
    once = MODULES[name](COUNTS)(logits.repeat(2, 1), torch.cat([targets, other]), torch.cat([lam, 1 - lam]))
    if name == "seql":  # one draw for both labels, or one each: make it the same
        both = unreduced(logits.repeat(2, 1), torch.cat([targets, other]))
        twice = (lam * both[:n] + (1 - lam) * both[n:]).mean()
    else:
        twice = (lam * unreduced(logits, targets) + (1 - lam) * unreduced(logits, other)).mean()
    torch.testing.assert_close(once, twice)
    if name != "seql":
        # With one lambda for the whole batch it is lam L(a) + (1 - lam) L(b).
        loss = MODULES[name](COUNTS)
        weights = torch.cat([torch.full((n,), 0.3), torch.full((n,), 0.7)])
        once = loss(logits.repeat(2, 1), torch.cat([targets, other]), weights)
        torch.testing.assert_close(once, 0.3 * loss(logits, targets) + 0.7 * loss(logits, other), rtol=1e-6, atol=0)


@every_module
def test_the_forward_is_the_weighted_mean_of_sample_losses(name):
    logits, targets = batch()
    single = MODULES[name](COUNTS).sample_losses(logits, targets)
    weights = effective_number_weights(COUNTS, 0.99)
    reweighted = MODULES[name](COUNTS).with_class_weights(weights)
    expected = (weights[targets] * single).sum() / weights[targets].sum()
    torch.testing.assert_close(reweighted(logits, targets), expected)
    torch.testing.assert_close(
        MODULES[name](COUNTS).with_class_weights(weights, "batch")(logits, targets), (weights[targets] * single).mean()
    )


@every_module
def test_with_class_weights_leaves_the_original_alone(name):
    loss = MODULES[name](COUNTS)
    before = None if loss.class_weights is None else loss.class_weights.clone()
    other = loss.with_class_weights([1, 2, 3, 4, 5])
    assert type(other) is type(loss)
    assert other.class_weights.tolist() == [1, 2, 3, 4, 5]
    assert (loss.reduction, other.reduction) == ("batch", "weight_sum")
    assert (before is None and loss.class_weights is None) or torch.equal(before, loss.class_weights)
    assert other.with_class_weights(None, "batch").class_weights is None


@pytest.mark.parametrize("name", WEIGHTED_MODULES)
def test_class_weights_given_at_once_are_those_given_later(name):
    logits, targets = batch()
    weights = effective_number_weights(COUNTS)
    at_once = MODULES[name](COUNTS, class_weights=weights, reduction="weight_sum")
    later = MODULES[name](COUNTS).with_class_weights(weights)
    assert torch.equal(at_once(logits, targets), later(logits, targets))


@every_module
def test_state_is_empty_and_loads_into_a_loss_with_or_without_weights(name):
    logits, targets = batch()
    loss = MODULES[name](COUNTS)
    state = loss.state_dict()
    assert not state
    fresh = MODULES[name](COUNTS)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(logits, targets), loss(logits, targets))
    loss.with_class_weights([1] * C).load_state_dict(state)


@every_module
def test_buffers_move_with_the_module_but_stay_exact(name):
    loss = MODULES[name](COUNTS, reduction="sum")
    before = {key: buffer.clone() for key, buffer in loss.named_buffers()}
    torch.nn.Sequential(loss).to(torch.bfloat16)
    for key, buffer in loss.named_buffers():
        assert buffer.dtype == before[key].dtype
        assert torch.equal(buffer, before[key])
    moved = copy.deepcopy(loss).to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}
    assert set(dict(moved.named_buffers())) == set(before)


@every_module
def test_forward_runs_on_the_meta_device_so_it_reads_no_values(name):
    # Reading a value (a branch on data, .item()) fails there; on a GPU it would wait for the device.
    loss = MODULES[name](COUNTS)
    if getattr(loss, "generator", None) is not None:
        loss.generator = None
    loss = loss.with_class_weights([1] * C).to("meta")
    logits = torch.zeros(4, C, device="meta")
    targets = torch.zeros(4, dtype=torch.int64, device="meta")
    assert loss(logits, targets, torch.ones(4, device="meta")).shape == ()


@every_module
def test_repr_names_the_counts_and_the_reduction(name):
    text = repr(MODULES[name](COUNTS))
    assert "num_classes=5, class_counts=1..500" in text
    assert "reduction='batch'" in text


def test_repr_names_the_hyper_parameters():
    text = "; ".join(
        map(
            repr,
            [
                FocalLoss(COUNTS, 1.5, "sigmoid"),
                CBLoss(COUNTS, 0.9, "focal", 0.5),
                LDAMLoss(COUNTS, 0.3, 10),
                LogitAdjustmentLoss(COUNTS, 1.3),
                SoftmaxEqualizationLoss(COUNTS, 0.7, 0.02),
                LabelSmoothingLoss(COUNTS, 0.2),
                LabelAwareSmoothingLoss(COUNTS, 0.4, 0.1, "linear", "others"),
                CDTLoss(COUNTS, 0.15),
                VSLoss(COUNTS, 0.25, 1.2),
            ],
        )
    )
    for part in (
        "FocalLoss(gamma=1.5, form='sigmoid'",
        "CBLoss(beta=0.9, form='focal', gamma=0.5",
        "LDAMLoss(max_m=0.3, s=10.0",
        "LogitAdjustmentLoss(tau=1.3",
        "SoftmaxEqualizationLoss(gamma=0.7, threshold=0.02",
        "LabelSmoothingLoss(smoothing=0.2",
        "LabelAwareSmoothingLoss(head=0.4, tail=0.1, shape='linear', off_target='others'",
        "CDTLoss(gamma=0.15",
        "VSLoss(gamma=0.25, tau=1.2",
    ):
        assert part in text
