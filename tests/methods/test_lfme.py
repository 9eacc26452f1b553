"""LFME: groups, easiness and self-paced weights against slow formulas, the two stages, and what makes it plain."""

import math

import pytest
import torch
from recipes import recipe_of

import longtail
from longtail import data
from longtail.losses import CrossEntropyLoss
from longtail.methods.class_groups import GroupAnswers, GroupExperts, class_groups, membership
from longtail.methods.lfme import LearningFromExperts, easiness_floors, scaled_within_classes, self_paced_weights
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import build_expert_network, build_network
from longtail.sampling import CyclicClassSampling
from longtail.sampling.subset import SubsetSampling
from longtail.types import Batch, Progress

COUNTS = (300, 200, 60, 40, 10, 2)
GROUPS = [(0, 1), (2, 3), (4, 5)]


def labelled(targets, images=None, **mixed):
    targets = torch.as_tensor(targets)
    images = torch.empty(len(targets), 0) if images is None else images
    return Batch(images, targets, torch.arange(len(targets)), **mixed)


def double(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def objective(images=8, **options):
    floors = torch.tensor(easiness_floors(COUNTS, GROUPS)).repeat_interleave(2)
    return LearningFromExperts(membership(GROUPS, 6), floors, images, **options)


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        (COUNTS, GROUPS),
        ((100, 101, 99, 21, 20, 1), GROUPS),  # the code's bounds are inclusive
        ((2, 300, 10, 200, 40, 60), [(1, 3), (4, 5), (0, 2)]),
        ((120, 77, 50, 13, 2), [(0, 1, 2), (3, 4)]),  # a class alone joins the next smaller group
        ((300, 200, 50, 50, 2), [(0, 1), (2, 3, 4)]),  # the last joins the one before
        ((300, 200, 150), [(0, 1, 2)]),
        ((300, 0, 50, 40, 0), [(0, 2, 3)]),  # classes without images belong nowhere
        ((500, 10), [(0, 1)]),
    ],
)
def test_groups_hold_two_classes_or_more(counts, groups):
    assert class_groups(counts) == groups


def test_floors_are_the_ratios_of_mean_sizes():
    assert easiness_floors(COUNTS, GROUPS) == [6 / 250, 6 / 50, 1.0]


def test_confidences_are_scaled_within_their_class():
    confidences, targets = torch.rand(20, dtype=torch.float64), torch.arange(20) % 4
    floors = torch.tensor([0.1, 0.3, 0.5, 1.0], dtype=torch.float64)
    scaled = scaled_within_classes(confidences, targets, floors)
    for label in range(4):
        own = confidences[targets == label]
        share = (own - own.min()) / (own.max() - own.min())
        expected = floors[label] + (1 - floors[label]) * share
        torch.testing.assert_close(scaled[targets == label], expected)


def test_a_class_with_one_image_survives_the_scaling():
    floors = torch.tensor([0.2, 0.5, 0.7])
    scaled = scaled_within_classes(torch.tensor([0.4, 0.9, 0.9, 0.1]), torch.tensor([0, 1, 1, 2]), floors)
    assert scaled.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_weights_fall_with_the_gap_to_the_expert():
    student = torch.tensor([0.0, 0.24, 0.52, 0.8, 0.9])
    weights = self_paced_weights(student, torch.full((5,), 0.8), 0.3)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 0.28 / 0.56, 0.0, 0.0]))
    helpless = self_paced_weights(torch.tensor([0.0, 0.5]), torch.zeros(2), 0.3)
    assert helpless.tolist() == [1.0, 0.0]


def test_easiness_grows_linearly_in_both_forms():
    ratings = torch.tensor([0.2, 1.0], dtype=torch.float64)
    code, paper = objective(form="code"), objective(form="paper")
    expect = torch.testing.assert_close
    expect(code.easiness(ratings, Progress(49, 100)), torch.ones(2, dtype=torch.float64))
    expect(code.easiness(ratings, Progress(99, 100)), 2 - ratings)
    expect(paper.easiness(ratings, Progress(99, 100)), torch.ones(2, dtype=torch.float64))
    expect(paper.easiness(ratings, Progress(24, 100)), ratings + (1 - ratings) / 4)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_loss_is_the_formula(form):
    student, taught = double(4, 6).requires_grad_(), double(3, 4, 6, seed=1)
    targets, easiness = [0, 3, 5, 1], torch.tensor([0.3, 0.6, 1.0, 1.2], dtype=torch.float64)
    learning = objective(form=form)
    learning.weights.copy_(torch.tensor([1.0, 0.5, 0.25]))
    value = learning.loss(student, taught, labelled(targets), easiness)
    z = student * easiness[:, None] if form == "code" else student
    hard = [-z[i].log_softmax(0)[y] * (1 if form == "code" else easiness[i]) for i, y in enumerate(targets)]
    expected = sum(hard) / 4
    for weight, expert, group in zip([1.0, 0.5, 0.25], taught, GROUPS, strict=True):
        for i in range(4):
            t, s = (logits[i, list(group)] / 2 for logits in (expert, z))
            expected = expected + weight * (t.softmax(0) * (t.log_softmax(0) - s.log_softmax(0))).sum() / 4
    torch.testing.assert_close(value, expected)
    assert torch.autograd.gradcheck(lambda x: learning.loss(x, taught, labelled(targets), easiness), student)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_nothing_to_learn_from_experts_and_easy_images_are_plain_cross_entropy(form):
    student, taught, targets = double(4, 6), double(3, 4, 6, seed=1), torch.tensor([0, 3, 5, 1])
    learning = objective(form=form)
    learning.weights.zero_()
    value = learning.loss(student, taught, labelled(targets), torch.ones(4))
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(student, targets))


def test_an_expert_that_says_the_same_teaches_nothing():
    student, targets = double(4, 6), torch.tensor([0, 3, 5, 1])
    value = objective(form="paper").loss(student, student.expand(3, -1, -1), labelled(targets), torch.ones(4))
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(student, targets))


def test_mixed_labels_are_mixed_losses():
    student, targets, other = double(2, 6), torch.tensor([0, 3]), torch.tensor([5, 5])
    learning = objective(form="paper")
    learning.weights.zero_()
    batch = labelled(targets, mixed_targets=other, lam=torch.tensor([0.25, 1.0]))
    log_p = student.log_softmax(1)
    expected = -(0.25 * log_p[0, 0] + 0.75 * log_p[0, 5] + log_p[1, 3]) / 2
    torch.testing.assert_close(learning.loss(student, double(3, 2, 6), batch, torch.ones(2)), expected)


def test_experts_learn_their_own_classes_on_their_own_stream():
    network = build_expert_network("small", 6, experts=3).double().eval()
    batches = tuple(labelled(list(group) * 2, double(4, 3, 8, 8, seed=k)) for k, group in enumerate(GROUPS))
    experts = GroupExperts(SupervisedObjective(CrossEntropyLoss(COUNTS)), membership(GROUPS, 6))
    value = experts(network, batches, Progress(0, 1))
    expected = 0.0
    for k, (group, batch) in enumerate(zip(GROUPS, batches, strict=True)):
        own = network(batch.images)[k][:, list(group)]
        expected = expected + torch.nn.functional.cross_entropy(own, batch.targets - group[0])
    torch.testing.assert_close(value, expected)
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_one_expert_of_all_classes_learns_as_a_plain_network():
    network, batch = build_expert_network("small", 6, experts=1).double().eval(), labelled([0, 5], double(2, 3, 8, 8))
    experts = GroupExperts(SupervisedObjective(CrossEntropyLoss(COUNTS)), membership([tuple(range(6))], 6))
    plain = torch.nn.functional.cross_entropy(network(batch.images)[0], batch.targets)
    torch.testing.assert_close(experts(network, (batch,), Progress(0, 1)), plain, rtol=0, atol=1e-12)


def test_experts_answer_each_for_its_own_classes():
    logits = double(3, 4, 6)
    answer = GroupAnswers(membership(GROUPS, 6))
    expected = torch.cat([logits[0][:, :2], logits[1][:, 2:4], logits[2][:, 4:]], 1)
    assert torch.equal(answer(logits), expected)
    assert torch.equal(answer(logits[0]), logits[0])


def prepared(**options):
    torch.manual_seed(0)
    learning = objective(**options)
    experts, student = build_expert_network("small", 6, experts=3), build_network("small", 6)
    learning.prepare(experts, student)
    return learning, experts, student


def test_images_are_rated_by_the_expert_of_their_class():
    learning = prepared()[0]
    targets = torch.tensor([0, 0, 0, 3, 3, 3, 4, 5])
    logits = double(3, 8, 6).float()
    learning.measure(lambda module: logits if module is learning.experts else None, targets)
    expected = []
    for i, label in enumerate(targets.tolist()):
        own = logits[label // 2, i, list(GROUPS[label // 2])].softmax(0)
        expected.append(own[label % 2])
    floors = torch.tensor([0.024, 0.024, 0.12, 0.12, 1.0, 1.0])
    torch.testing.assert_close(learning.ratings, scaled_within_classes(torch.stack(expected), targets, floors))
    assert learning.ratings[targets == 0].min() == pytest.approx(0.024)
    assert learning.ratings[6:].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dev", [False, True])
def test_an_epoch_s_accuracies_set_the_weights_of_the_next(dev):
    learning, experts, student = prepared(dev=dev)
    experts.eval()
    images, targets = torch.randn(8, 3, 8, 8), torch.tensor([0, 1, 0, 2, 3, 2, 4, 5])
    train, held = labelled(targets, images), labelled(targets, torch.randn(8, 3, 8, 8))
    batches = (train, held) if dev else (train,)
    learning(student, batches, Progress(0, 3, 0, 2))
    learning(student, batches, Progress(0, 3, 1, 2))
    assert learning.weights.tolist() == [1.0, 1.0, 1.0]
    seen = held if dev else train
    with torch.no_grad():
        own = experts(seen.images)
        said = student.eval()(seen.images) if dev else student.train()(seen.images)
    right = [0.0] * 3, [0.0] * 3
    for i, label in enumerate(targets.tolist()):
        group = GROUPS[label // 2]
        right[0][label // 2] += float(said[i].argmax() == label)
        right[1][label // 2] += float(own[label // 2, i, list(group)].argmax() == label % 2)
    student.train()
    learning(student, batches, Progress(1, 3, 0, 2))
    for weight, hits, of_expert in zip(learning.weights.tolist(), *right, strict=True):
        if hits <= 0.3 * of_expert:
            assert weight == 1
        else:
            assert weight == pytest.approx(max(0.0, (of_expert - hits) / (0.7 * of_expert or math.inf)))
    assert student.training
    assert not learning.experts.network.training


def test_experts_are_frozen():
    learning, _, student = prepared()
    value = learning(student, (labelled([0, 1, 2, 5], torch.randn(4, 3, 8, 8)),), Progress(0, 3))
    value.backward()
    assert all(p.grad is None for p in learning.experts.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_stages(digits, cifar_like):
    experts, student = recipe_of("lfme", cifar_like, "published").stages
    assert [len(sampling.classes) for sampling in experts.sampling] == [35, 34, 31]
    assert len({sampling.images for sampling in experts.sampling}) == 1
    assert isinstance(experts.sampling[0], SubsetSampling)
    assert student.sampling == (CyclicClassSampling(4),)
    assert (experts.epochs, student.epochs) == (200, 200)
    short = recipe_of("lfme", digits, epochs=10, expert_epochs=4).stages
    assert [stage.epochs for stage in short] == [4, 10]
    assert short[0].schedule.epochs == 4


def test_a_development_set_is_passed_once_an_epoch(tmp_path, plain_run):
    held = data.load("digits", dev_per_class=5)
    stage = recipe_of("lfme", held, "quick").stages[1]
    steps = sum(held.class_counts) / stage.batch_size
    assert stage.objective.dev
    assert 50 <= steps * stage.dev_batch_size < 50 + 2 * steps
    run = longtail.train(held, "lfme", out=tmp_path / "run", **{**plain_run, "epochs": 2})
    assert 0 <= run.metrics["top1"] <= 100


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"threshold": 1.0}, {"many": 20, "few": 20}, {"expert_epochs": 0}]
)
def test_wrong_options_are_refused(options, digits):
    with pytest.raises(longtail.UsageError):
        recipe_of("lfme", digits, **options)
