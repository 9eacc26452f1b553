"""BBN: the cumulative loss against the published code, alpha over the epochs, and the test as alpha = 1/2."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import recipe_of

import longtail
from longtail.losses import CrossEntropyLoss
from longtail.methods.bbn import ADAPTORS, BilateralObjective
from longtail.methods.supervised import SupervisedObjective
from longtail.networks.bilateral import BilateralHead, build_bilateral_network
from longtail.sampling import ClassBalancedSampling, InstanceSampling, ReverseSampling
from longtail.types import Batch, Progress

GOLDEN = Path(__file__).parents[1] / "golden" / "experts.json"
CASES = [case for case in json.loads(GOLDEN.read_text())["cases"] if case["method"] == "BBN bilateral loss"]
COUNTS = [50, 20, 8, 3, 1]


def array(value):
    """Return a stored array, or the one that a stored numpy expression makes, as float64."""
    if isinstance(value, dict):
        value = eval(value["recipe"], {"numpy": np})
    return torch.tensor(np.array(value), dtype=torch.float64)


def labelled(targets, images=None, **mixed):
    targets = torch.as_tensor(targets)
    images = torch.empty(len(targets), 0) if images is None else images
    return Batch(images, targets, torch.arange(len(targets)), **mixed)


def objective(counts=COUNTS, adaptor="parabolic"):
    return BilateralObjective(SupervisedObjective(CrossEntropyLoss(counts)), adaptor)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_value_and_gradients_are_those_of_the_published_code(case):
    inputs, output = case["inputs"], case["output"]
    names = ("conventional", "rebalancing")
    features = torch.stack([array(inputs[f"f_{name}"]) for name in names]).requires_grad_()
    weight = array(inputs["classifier_weight"])
    head = BilateralHead(features.shape[-1], len(weight)).double()
    head.load_state_dict({"weight": weight, "bias": array(inputs["classifier_bias"])})
    batches = tuple(labelled(inputs[f"y_{name}"]) for name in names)
    alpha = ADAPTORS["parabolic"]((case["hyper"]["epoch_1based"] - 1) / case["hyper"]["MAX_EPOCH"])
    assert alpha == pytest.approx(case["hyper"]["alpha"], abs=1e-12)
    value = objective([1] * len(weight)).loss(head, features, batches, alpha)
    value.backward()
    assert value.item() == pytest.approx(output["loss"], abs=1e-10)
    for grad, name in zip(features.grad, names, strict=True):
        torch.testing.assert_close(grad, array(output[f"grad_f_{name}"]), rtol=0, atol=1e-10)


def test_all_stored_cases_are_used():
    assert len(CASES) == 3


@pytest.mark.parametrize("backbone", ["small", "resnet20"])
def test_the_test_is_alpha_one_half(backbone):
    network = build_bilateral_network(backbone, 5).double().eval()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    heard = []
    network.head.register_forward_hook(lambda module, args, out: heard.append(out))
    batch = labelled([0, 1, 2, 4], images)
    value = objective(adaptor="equal")(network, (batch, batch), Progress(1, 4))
    torch.testing.assert_close(heard[0], network(images), rtol=0, atol=1e-12)
    plain = torch.nn.functional.cross_entropy(network(images), batch.targets)
    assert value.item() == pytest.approx(plain.item(), abs=1e-12)


def test_alpha_one_is_the_conventional_branch_alone():
    network = build_bilateral_network("small", 5).double().eval()
    one, two = (labelled(y, torch.randn(3, 3, 8, 8, dtype=torch.float64)) for y in ([0, 1, 2], [4, 4, 3]))
    value = objective()(network, (one, two), Progress(0, 10))
    logits = 2 * network.features(one.images)[0] @ network.head.weight[:, : network.num_features].T + network.head.bias
    assert value.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, one.targets).item(), abs=1e-12)
    value.backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not any(name.startswith("backbone.branches.1") for name in moved)
    assert any(name.startswith("backbone.branches.0") for name in moved)


def test_alpha_falls_from_one_by_the_epoch():
    epochs = [e / 200 for e in range(200)]
    for name in ("parabolic", "linear", "cosine"):
        values = [ADAPTORS[name](done) for done in epochs]
        assert values[0] == 1
        assert all(a > b > 0 for a, b in pairwise(values))
    assert ADAPTORS["parabolic"](0.5) == 0.75
    assert ADAPTORS["cosine"](0.5) == pytest.approx(0.5**0.5)
    assert {ADAPTORS["equal"](done) for done in epochs} == {0.5}


def test_mixed_labels_are_mixed_losses():
    head, features = BilateralHead(3, 5).double(), torch.randn(2, 4, 3, dtype=torch.float64)
    first, second, other = [0, 1, 2, 3], [4, 4, 3, 2], torch.tensor([1, 1, 1, 1])
    lam = torch.tensor([0.25, 0.5, 0.75, 1.0])
    mixed = labelled(first, mixed_targets=other, lam=lam)
    value = objective().loss(head, features, (mixed, labelled(second)), 0.7)
    logits = head(torch.stack([1.4 * features[0], 0.6 * features[1]])).log_softmax(1)
    rows = torch.arange(4)
    own = -(lam * logits[rows, first] + (1 - lam) * logits[rows, other]).mean()
    expected = 0.7 * own - 0.3 * logits[rows, second].mean()
    torch.testing.assert_close(value, expected)


def test_streams_and_published_settings(digits, cifar_like):
    assert recipe_of("bbn", digits).stages[0].sampling == (InstanceSampling(), ReverseSampling())
    balanced = recipe_of("bbn", digits, rebalancing="balanced").stages[0]
    assert balanced.sampling == (InstanceSampling(), ClassBalancedSampling())
    stage = recipe_of("bbn", cifar_like, "published").stages[0]
    assert stage.schedule.milestones == (120, 160)
    assert (stage.optimizer.nesterov, stage.optimizer.weight_decay) == (True, 2e-4)


def test_a_task_without_labels_takes_the_features_of_each_branch(digits):
    stage = recipe_of("bbn+ssp", digits).stages[0]
    network = build_bilateral_network("small", 10, 1)
    network.head = stage.new_head(network.head)
    assert network.head.pretext(network.features(torch.randn(3, 1, 8, 8))).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("bbn+drw", "samples by class"), ("bbn+cmo", "branches of its own"), ("bbn+h2t", "frozen backbone")],
)
def test_pairs_that_make_no_sense_say_so(name, reason, digits):
    with pytest.raises(longtail.UsageError, match=reason):
        recipe_of(name, digits)


def test_unknown_words_are_wrong_use(digits):
    with pytest.raises(longtail.UsageError, match="parabolic, linear, cosine, equal"):
        recipe_of("bbn", digits, adaptor="slow")
