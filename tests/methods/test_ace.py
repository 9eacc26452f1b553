"""ACE: the loss against its formula, who moves the trunk, how fast each expert learns, and the common answer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from recipes import recipe_of

import longtail
from longtail.augment import Mixup
from longtail.methods.ace import AverageKnowing, ally_loss
from longtail.methods.class_groups import NestedObjective, nested_classes
from longtail.networks import build_network
from longtail.networks.allies import AllyHead, build_ally_network
from longtail.types import Batch

COUNTS = [50, 20, 8, 3, 1]
CLASSES = nested_classes(COUNTS, 2, 1)
KNOWN = [{0, 1, 2, 3, 4}, {2, 3, 4}, {4}]


def random_logits(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, size, len(COUNTS), dtype=torch.float64, generator=generator)


def test_the_loss_is_the_formula():
    logits, targets = random_logits(), torch.tensor([0, 0, 1, 2, 4, 4])
    expected = 0.0
    for e, known in enumerate(KNOWN):
        own = [i for i, y in enumerate(targets.tolist()) if y in known]
        for i in own:
            z = logits[e, i].tolist()
            classified = -logits[e, i].log_softmax(0)[targets[i]].item()
            silence = [value**2 for c, value in enumerate(z) if c not in known]
            silent = sum(silence) / len(silence) if silence else 0.0
            expected += (classified + 0.7 * silent) / len(own)
    value = ally_loss(logits, targets, CLASSES, com=0.7)
    assert value.item() == pytest.approx(expected, abs=1e-12)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ally_loss(z, targets, CLASSES, com=0.7), logits)


def test_without_medium_and_tail_classes_the_first_expert_is_plain_training():
    logits, targets = random_logits().requires_grad_(), torch.tensor([0, 0, 1, 2, 4, 4])
    value = ally_loss(logits, targets, nested_classes(COUNTS, 5, 0), com=1.0)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits[0], targets))
    value.backward()
    assert logits.grad[1:].abs().sum() == 0


def test_an_expert_without_an_image_in_the_batch_adds_nothing():
    logits = (50 * random_logits()).float().requires_grad_()
    value = ally_loss(logits, torch.tensor([0, 1, 1, 0, 0, 0]), CLASSES, com=1.0)
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1:].abs().sum() == 0


def test_mixed_labels_are_weighted_members():
    logits, lam = random_logits(2), torch.tensor([0.25, 1.0], dtype=torch.float64)
    batch = Batch(torch.empty(2, 0), torch.tensor([0, 1]), torch.arange(2), torch.tensor([4, 3]), lam)
    nll, squares = -logits.log_softmax(-1), logits.square()
    first = (0.25 * nll[0, 0, 0] + 0.75 * nll[0, 0, 4] + nll[0, 1, 1]) / 2
    second = nll[1, 0, 4] + squares[1, 0, :2].mean()  # the only member, with a share of 0.75 of itself
    third = nll[2, 0, 4] + squares[2, 0, :4].mean()
    torch.testing.assert_close(
        NestedObjective(partial(ally_loss, com=1.0), CLASSES).loss(logits, batch), first + second + third
    )


def test_a_class_is_answered_by_the_experts_that_know_it():
    logits = random_logits()
    answer = AverageKnowing(CLASSES)(logits)
    for c in range(len(COUNTS)):
        who = [e for e, known in enumerate(KNOWN) if c in known]
        torch.testing.assert_close(answer[:, c], sum(logits[e, :, c] for e in who) / len(who))


def network(seed=0):
    torch.manual_seed(seed)
    return build_ally_network("small", len(COUNTS), 1, classes=tuple(map(tuple, CLASSES.tolist())))


def test_only_the_first_expert_moves_the_trunk():
    images = torch.rand(4, 1, 8, 8)
    for expert in range(3):
        net = network()
        net(images)[expert].square().sum().backward()
        moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert any(name.startswith("backbone.stem.") for name in moved) == (expert == 0)
        assert any(name.startswith(f"backbone.experts.{expert}.") for name in moved)


@pytest.mark.parametrize("backbone", ["small", "resnet32"])
def test_all_at_once_is_one_by_one(backbone):
    torch.manual_seed(0)
    net = build_ally_network(backbone, 3, 1, classes=((True,) * 3, (False, True, True), (False, False, True)))
    images, weights = torch.randn(4, 1, 16, 16), torch.randn(3, 4, 3)
    found = []
    for at_once in (False, True):
        net.backbone.batched = at_once
        net.zero_grad()
        (net(images) * weights).sum().backward()
        found.append({name: p.grad.clone() for name, p in net.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-4)


def test_trunk_and_first_expert_are_the_plain_network():
    torch.manual_seed(0)
    plain = build_network("small", len(COUNTS), 1).eval()
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(network().eval()(images)[0], plain(images))


def test_at_the_test_all_experts_have_the_first_one_s_scale():
    torch.manual_seed(0)
    head = AllyHead([torch.nn.Linear(4, len(COUNTS)) for _ in range(3)], CLASSES)
    features = torch.randn(3, 2, 4)
    trained = head(features)
    evaluated = head.eval()(features)
    torch.testing.assert_close(evaluated[0], trained[0])
    for e, known in enumerate(KNOWN):
        rows = sorted(known)
        factor = head.heads[0].weight[rows].norm() / head.heads[e].weight[rows].norm()
        torch.testing.assert_close(evaluated[e], factor * trained[e])
    with torch.no_grad():
        head.heads[2].weight.zero_()
    assert torch.isfinite(head(features)).all()


def test_experts_learn_at_the_pace_of_their_images(cifar_like):
    stage = recipe_of("ace", cifar_like, "published").stages[0]
    counts = torch.tensor(cifar_like.class_counts, dtype=torch.float64)
    objective = stage.objective
    assert objective.classes.sum(1).tolist() == [100, 65, 30]
    scales = dict(stage.optimizer.lr_scales)
    assert set(scales) == {f"{part}.{e}." for part in ("backbone.experts", "head.heads") for e in (1, 2)}
    for e in (1, 2):
        assert scales[f"head.heads.{e}."] == pytest.approx((counts[objective.classes[e]].sum() / counts.sum()).item())
    assert isinstance(stage.mixing, Mixup)
    assert recipe_of("ace", cifar_like).stages[0].mixing is None
    assert (stage.epochs, stage.schedule.milestones, stage.schedule.decay) == (400, (320, 360), (0.1, 0.01))


@pytest.mark.parametrize("options", [{"com": -1}, {"com": float("nan")}, {"head": -1}, {"head": 6, "tail": 5}])
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError):
        recipe_of("ace", digits, **options)
