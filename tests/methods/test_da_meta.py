"""Meta re-weighting: the published step to the bit, its limits, and what the recipe makes of options."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from meta_steps import (
    CASES,
    COUNTS,
    Perceptron,
    apart,
    batch_of,
    check_parameters,
    double_backward,
    residual,
    small,
    stored,
    unreduced,
)
from recipes import recipe_of

import longtail
from longtail import data as datasets
from longtail import folder
from longtail.augment import RandomCrop
from longtail.errors import UsageError
from longtail.losses import CBLoss, CrossEntropyLoss, LDAMLoss, effective_number_weights
from longtail.methods.da_meta import LookAhead, WeighedObjective
from longtail.methods.meta import WeightRecord, forward
from longtail.methods.supervised import SupervisedObjective
from longtail.sampling import InstanceSampling
from longtail.training.state import load_state
from longtail.types import Progress
from reporters import Crash


def da_objective(case_or_weights, *, tau=0.01, strength=None, eta=None, loss=None, dev_loss=None):
    plain = CrossEntropyLoss(COUNTS)
    return WeighedObjective(
        loss or plain,
        dev_loss or plain,
        torch.as_tensor(case_or_weights, dtype=torch.float64),
        LookAhead(eta, 1e-3),
        tau=tau,
        strength=strength,
        record=WeightRecord(4, 1),
    )


@pytest.mark.parametrize("case_id", ["longtailda_step_epoch160_batches1", "longtailda_step_epoch180_batches1"])
def test_a_step_is_that_of_longtail_da(case_id):
    case = CASES[case_id]
    hyper, inputs, step = case["hyper"], case["inputs"], case["output"]["steps"][0]
    network = Perceptron(inputs["weights"])
    objective = da_objective(inputs["class_weights"], tau=hyper["tau"])
    batch, dev = stored(inputs["train_batches"][0]), stored(inputs["dev_batch"])
    lr = hyper["eta_virtual_step"]
    passed = forward(network, batch, objective.criterion)
    weights = objective.class_weights[batch.targets]
    eps = objective.terms(network, passed, dev, weights, lr)
    torch.testing.assert_close(eps, torch.tensor(step["eps"], dtype=torch.float64), rtol=1e-10, atol=0)
    optimizer = torch.optim.SGD(network.parameters(), hyper["lr_real_step"], 0.9, 0, 5e-4, nesterov=True)
    loss = objective(network, (batch, dev), Progress(0, 1, lr=lr))
    assert loss.item() == pytest.approx(step["train_loss"], rel=1e-11)
    loss.backward()
    optimizer.step()
    check_parameters(network, step["params"])


def sgd(network):
    return torch.optim.SGD(network.parameters(), 1e-3, 0.9, 0, 5e-4, nesterov=True)


def official_step(network, batch, dev, weights, eta, tau):
    """A step as the published code takes it: eps by the double backward on a copy, then a forward pass of its own."""
    loss = lambda logits, targets: F.cross_entropy(logits, targets, reduction="none")  # noqa: E731
    eps = -tau * double_backward(network, batch, dev, loss, loss, weights, eta)
    total = ((weights + eps) * loss(network(batch.images), batch.targets)).sum() / len(batch)
    total.backward()
    return eps


@pytest.mark.parametrize("make", [small, residual])
def test_whole_steps_leave_the_bits_that_the_double_backward_leaves(make):
    ours, batch, dev = make(torch.float32)
    theirs = copy.deepcopy(ours)
    class_weights = torch.tensor([0.2, 0.5, 0.9, 2.4])
    objective = da_objective(class_weights, tau=0.01)
    optimizers = sgd(ours), sgd(theirs)
    for _ in range(3):
        objective(ours, (batch, dev), Progress(0, 1, lr=1e-3)).backward()
        eps = official_step(theirs, batch, dev, class_weights[batch.targets], 1e-3, 0.01)
        assert eps.abs().max() > 1e-5  # float32 holds less beside weights of 1
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        ours_state, their_state = ours.state_dict(), theirs.state_dict()
        assert all(torch.equal(ours_state[name], their_state[name]) for name in ours_state)


def test_without_a_term_it_is_class_balanced_cross_entropy_to_the_bit():
    ours, batch, _ = small(torch.float32)
    theirs = copy.deepcopy(ours)
    balanced = CBLoss(COUNTS)
    objective = da_objective(balanced.class_weights, tau=0.0)
    reference = SupervisedObjective(balanced)
    for _ in range(3):
        one = objective(ours, (batch,), Progress(0, 1, lr=1e-3))
        other = reference(theirs, (batch,), Progress(0, 1))
        assert torch.equal(one, other)
        for network, loss in ((ours, one), (theirs, other)):
            loss.backward()
            sgd(network).step()
            network.zero_grad()
        assert all(
            torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        )


def test_strength_is_the_share_of_the_term_and_keeps_its_direction():
    network, batch, dev = small()
    weights = torch.tensor([0.2, 0.5, 0.9, 2.4], dtype=torch.float64)
    published, strong = da_objective(weights), da_objective(weights, strength=0.3)
    passed = forward(network, batch, published.criterion)
    of_batch = weights[batch.targets]
    eps = published.terms(network, passed, dev, of_batch, 1e-3)
    scaled = strong.terms(network, passed, dev, of_batch, 1e-3)
    assert float(scaled.abs().mean() / of_batch.mean()) == pytest.approx(0.3)
    torch.testing.assert_close(scaled / scaled.norm(), eps / eps.norm())
    assert float(eps.abs().mean() / of_batch.mean()) < 1e-3


def test_the_papers_step_is_a_mean_at_the_learning_rate():
    network, batch, dev = small()
    weights = torch.tensor([0.2, 0.5, 0.9, 2.4], dtype=torch.float64)
    objective = da_objective(weights)
    objective.step = LookAhead(None, 1.0, mean=True)
    passed = forward(network, batch, objective.criterion)
    of_batch, lr = weights[batch.targets], 0.05
    loss = unreduced(CrossEntropyLoss(COUNTS))
    slow = double_backward(network, batch, dev, loss, loss, of_batch / len(batch), lr) / len(batch)
    assert apart(objective.terms(network, passed, dev, of_batch, lr), -0.01 * slow) < 1e-10


def held_out(data):
    """Return the data set with some of its training images as development set, for recipes alone."""
    return replace(data, dev=data.train.subset(torch.arange(len(data.class_names))))


def test_the_published_recipe_is_that_of_the_official_code(cifar_like):
    early, late = recipe_of("da-meta", held_out(cifar_like), "published").stages
    assert (early.epochs, late.epochs, late.first_epoch) == (160, 40, 160)
    assert late.continues
    assert late.dev == (InstanceSampling(),)
    assert early.dev == ()
    assert (early.batch_size, early.optimizer.weight_decay, early.optimizer.nesterov) == (100, 5e-4, True)
    assert [early.schedule.factor(epoch) for epoch in (0, 159, 160, 180)] == [1.0, 1.0, 1e-2, 1e-4]
    assert RandomCrop(4, "reflect") in late.augment.transforms
    rates = [late.optimizer.lr * late.schedule.factor(epoch) for epoch in (160, 180)]
    assert rates == [1e-3, 1e-5]
    # To the bit what a step of 1e-3 at the switch is, the code's number.
    for step in (late.objective.step, LookAhead(1e-3, 1e-3)):
        assert [step.size(lr) for lr in rates] == [1e-3, 1e-5]
        assert step.divisor(batch_of(torch.zeros(4, 1), [0] * 4)) == 1
    expected = effective_number_weights(cifar_like.class_counts, 0.9999)
    torch.testing.assert_close(late.objective.class_weights, expected)


@pytest.mark.parametrize("protocol", ["common", "published"])
def test_the_look_ahead_step_is_the_learning_rate_s_under_any_schedule(protocol, cifar_like):
    """The code: meta_lr = args.lr * 0.01 ** (epoch >= 160) * 0.01 ** (epoch >= 180), which is its optimiser's rate."""
    data = held_out(cifar_like)
    for form in ("code", "paper"):
        late = recipe_of("da-meta", data, protocol, form=form, start=0.6).stages[1]
        rates = [late.optimizer.lr * late.schedule.factor(late.first_epoch + epoch) for epoch in range(late.epochs)]
        assert [late.objective.step.size(lr) for lr in rates] == rates
    given = recipe_of("da-meta", data, protocol, form="paper", eta=0.3, start=0.6).stages[1].objective.step
    assert given.mean
    assert given.size(rates[0]) == pytest.approx(0.3)
    assert given.size(rates[0] / 2) == pytest.approx(0.15)


def test_the_papers_form_has_its_own_beta_and_its_loss_on_the_development_set(cifar_like):
    data = held_out(cifar_like)
    code, paper = (recipe_of("da-meta", data, form=form, loss="ldam").stages[1].objective for form in ("code", "paper"))
    assert isinstance(code.dev_criterion, LDAMLoss)
    assert code.dev_criterion.max_m == 0  # cross-entropy of the scaled cosines
    assert paper.dev_criterion is paper.criterion
    n = sum(data.class_counts)
    torch.testing.assert_close(paper.class_weights, effective_number_weights(data.class_counts, (n - 1) / n))
    assert paper.step.size(0.3) == 0.3
    given = recipe_of("da-meta", data, form="paper", beta=0.9).stages[1].objective
    torch.testing.assert_close(given.class_weights, effective_number_weights(data.class_counts, 0.9))


def test_without_a_term_no_development_set_is_needed(digits):
    late = recipe_of("da-meta", digits, tau=0.0).stages[1]
    assert late.dev == ()
    assert recipe_of("da-meta", digits, tau=0.5, strength=0.0).stages[1].dev == ()
    for name in ("da-meta", "l2rw", "meta-weight-net", "cb-finetune", "ce+dev"):
        with pytest.raises(UsageError, match="needs a small balanced development set") as caught:
            recipe_of(name, digits)
        assert "--dev-per-class 10" in caught.value.fix


@pytest.mark.parametrize(
    "options", [{"tau": -0.1}, {"eta": 0.0}, {"strength": -1.0}, {"beta": 1.5}, {"start": 1.0}, {"tau": math.nan}]
)
def test_wrong_options_are_refused(options, cifar_like):
    with pytest.raises(UsageError):
        recipe_of("da-meta", held_out(cifar_like), **options)


@pytest.mark.parametrize("name", ["da-meta+mixup", "l2rw+cutmix", "da-meta+dev", "da-meta+drw", "meta-weight-net+cmo"])
def test_what_makes_no_sense_with_learned_weights_says_so(name, cifar_like):
    with pytest.raises(UsageError, match=r"development set|already rebalances"):
        recipe_of(name, held_out(cifar_like))


def test_what_was_learned_survives_a_kill_to_the_bit(plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    data = datasets.load("digits", imbalance=10, dev_per_class=2)
    run = {**plain_run, "epochs": 2}
    for name, options in (("da-meta", {"start": 0.5, "strength": 0.3}), ("meta-weight-net", {"meta_lr": 1.0})):
        states = []
        for stop in (0, 8, 15):
            out = tmp_path / f"{name}-{stop}"
            if stop:
                with pytest.raises(RuntimeError, match="killed"):
                    longtail.train(data, name, out=out, reporter=Crash(stop), **run, **options)
            done = longtail.train(data, name, out=out, resume=bool(stop), **run, **options)
            states.append(load_state(done.path / "state.pt")["objective"])
        for state in states[1:]:
            assert state.keys() == states[0].keys()
            assert all(torch.equal(value, states[0][key]) for key, value in state.items())
        assert float(states[0]["record.count"].sum(1)[0]) > 0
        assert float(states[0]["record.term"].abs().sum()) > 0
