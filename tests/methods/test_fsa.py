"""Feature space augmentation: which classes, which positions, which partners, and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recipes import recipe_of
from resuming import goes_on_to_the_same_bits

import longtail
from longtail.data import long_tail_counts
from longtail.losses import CrossEntropyLoss
from longtail.methods.fsa import FeatureSpaceAugmentation, activation_maps, fuse, head_and_tail
from longtail.networks import BACKBONES, build_network
from longtail.sampling.subset import SubsetSampling
from longtail.types import Batch, Progress


def test_the_head_has_at_most_nine_tenths_of_the_images():
    counts = tuple(long_tail_counts(500, 100, 100))
    head, tail = head_and_tail(counts)
    assert sorted(head + tail) == list(range(100))
    assert sum(counts[c] for c in head) <= 0.9 * sum(counts) < sum(counts[c] for c in head) + counts[tail[0]]
    assert min(counts[c] for c in head) >= max(counts[c] for c in tail)


@pytest.mark.parametrize(
    ("counts", "share", "head", "tail"),
    [
        ((10, 10, 10), 0.9, (0, 1), (2,)),
        ((10, 10, 10), 1.0, (0, 1), (2,)),
        ((10, 10, 10), 0.0, (0,), (1, 2)),
        ((1, 999), 0.9, (1,), (0,)),
        ((0, 5, 50, 0, 3), 0.9, (2,), (1, 4)),
    ],
)
def test_both_groups_have_a_class_with_images(counts, share, head, tail):
    assert head_and_tail(counts, share) == (head, tail)


def test_one_class_with_images_is_too_few():
    with pytest.raises(longtail.UsageError, match="two classes with images"):
        head_and_tail((0, 7, 0))


def test_maps_show_what_speaks_for_the_class_from_0_to_1():
    torch.manual_seed(0)
    maps, weights = torch.randn(4, 5, 3, 2), torch.randn(4, 5)
    maps[3] = 1.0  # the same everywhere
    got = activation_maps(maps, weights).double().numpy()
    for f, w, cam in zip(maps.double().numpy(), weights.double().numpy(), got, strict=True):
        slow = np.maximum((w[:, None, None] * f).sum(0), 0)
        spread = slow.max() - slow.min()
        if spread > 1e-9:
            np.testing.assert_allclose(cam, (slow - slow.min()) / spread, atol=1e-6)
    assert np.isfinite(got[:3]).all()
    assert not (got[3] > 0).any()
    assert not (got[3] < 1).any(), "neither specific nor generic"


def test_fused_features_take_each_position_from_one_of_the_two():
    torch.manual_seed(0)
    tail, head = torch.randn(6, 3, 4, 5), torch.randn(6, 3, 4, 5)
    specific, generic, taken = torch.rand(6, 4, 5) > 0.3, torch.rand(6, 4, 5) > 0.3, torch.rand(6, 4, 5) > 0.5
    got = fuse(tail, specific, head, generic, taken).double().numpy()
    slow = np.zeros((6, 3))
    for i, y, x in np.ndindex(6, 4, 5):
        if taken[i, y, x]:
            slow[i] += tail[i, :, y, x].double().numpy() * bool(specific[i, y, x])
        else:
            slow[i] += head[i, :, y, x].double().numpy() * bool(generic[i, y, x])
    np.testing.assert_allclose(got, slow / 20, atol=1e-6)


def objective(**options: float) -> FeatureSpaceAugmentation:
    made = FeatureSpaceAugmentation(CrossEntropyLoss([9, 8, 7, 2, 1]), (0, 1, 2), 5, **options)
    scores = torch.eye(5) * 5  # class 3 is taken for 1, then 0, then 4, then 2; class 4 for 2
    scores[3] = torch.tensor([2.0, 3, 0, 5, 1])
    scores[4] = torch.tensor([0.0, 0, 3, 1, 5])
    made.measure(lambda module=None: scores.repeat(2, 1), torch.arange(5).repeat(2))
    return made


def test_confusing_classes_are_of_the_head_and_by_the_mean_softmax():
    order = objective().order
    assert order.shape == (5, 3)
    assert [int(order[3, c]) for c in (1, 0, 2)] == [0, 1, 2]
    assert int(order[4, 2]) == 0
    assert [int(order[c, c]) for c in range(3)] == [2, 2, 2], "no class is confused with itself"


def test_the_head_may_be_any_classes():
    made = FeatureSpaceAugmentation(CrossEntropyLoss([1, 9, 2, 8]), (1, 3), 4, confusing=1, fused=1)
    scores = torch.tensor([[9.0, 1, 5, 2], [0, 9, 0, 1], [3.0, 2, 9, 1], [0, 1, 0, 9]])
    made.measure(lambda module=None: scores, torch.arange(4))
    tail, head = torch.tensor([0, 2]), torch.tensor([1, 3, 3, 1])
    assert {tuple(head[made.partners(tail, head)].flatten().tolist()) for _ in range(20)} == {(3, 1)}


def test_partners_are_of_the_confusing_classes_and_then_of_the_next():
    torch.manual_seed(0)
    tail, head = torch.tensor([3, 4]), torch.tensor([0, 0, 1, 1, 2, 2])
    for _ in range(20):
        drawn = head[objective(confusing=1, fused=2).partners(tail, head)]
        assert drawn.tolist() == [[1, 1], [2, 2]]
    more = {tuple(sorted(head[objective(confusing=2, fused=3).partners(tail, head)][0].tolist())) for _ in range(40)}
    assert more == {(0, 0, 1), (0, 1, 1)}
    assert head[objective(confusing=1, fused=5).partners(tail, head)][0].tolist()[:2] == [1, 1], "then class 0"
    assert sorted(head[objective(confusing=1, fused=4).partners(tail, head)][0].tolist()) == [0, 0, 1, 1]
    assert objective(fused=9).partners(tail, head).shape == (2, 6), "no more than there are"


def batches() -> tuple[Batch, Batch]:
    torch.manual_seed(2)
    rare, often = torch.tensor([3, 4, 3]), torch.tensor([0, 1, 2, 0])
    return tuple(Batch(torch.randn(len(y), 1, 8, 8), y, torch.arange(len(y))) for y in (rare, often))


def test_the_loss_is_half_of_the_rare_and_half_of_the_frequent():
    network, made = build_network("small", 5, 1).eval(), objective(fused=2)
    tail, head = batches()
    torch.manual_seed(3)
    loss = made(network, (tail, head), Progress(0, 1))
    torch.manual_seed(3)
    real, fused, frequent = made.features(network, tail, head)
    torch.testing.assert_close(real, network.features(tail.images))
    torch.testing.assert_close(frequent, network.features(head.images))
    assert fused.shape == (3, 2, network.num_features)
    rows = [(f, y) for f, y in zip(real, tail.targets, strict=True)]
    rows += [(f, y) for several, y in zip(fused, tail.targets, strict=True) for f in several]

    def mean(pairs) -> float:
        return float(np.mean([-network.head(f).double().log_softmax(0)[y].item() for f, y in pairs]))

    expected = 0.5 * mean(rows) + 0.5 * mean(list(zip(frequent, head.targets, strict=True)))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert network.head.weight.grad.any()
    assert all(p.grad is None for p in network.backbone.parameters())


@pytest.mark.parametrize(("specific", "generic"), [(0.8, 0.2), (0.3, 0.6)])
def test_fused_features_are_of_a_rare_image_and_its_partners_at_the_positions_of_their_maps(specific, generic):
    torch.manual_seed(5)
    network, made = build_network("small", 5, 1).eval(), objective(specific=specific, generic=generic)
    network.head.weight.data.abs_()  # some activation everywhere
    tail, head = batches()
    torch.manual_seed(4)
    _, fused, _ = made.features(network, tail, head)
    torch.manual_seed(4)
    partners = made.partners(tail.targets, head.targets)

    def map_and_activation(image, label):
        f = network.backbone.feature_map(image[None])[0].detach().double().numpy()
        m = np.maximum(np.tensordot(network.head.weight[label].detach().double().numpy(), f, 1), 0)
        return f, (m - m.min()) / (m.max() - m.min())

    for n in range(3):
        gamma = torch.rand(3, 1, 1)
        taken = (torch.rand(3, *fused_shape(network, tail)) > gamma).numpy()
        for i in range(3):
            k = partners[i, n]
            f, m = map_and_activation(tail.images[i], tail.targets[i])
            g, o = map_and_activation(head.images[k], head.targets[k])
            slow = np.where(taken[i], f * (m > specific), g * (o < generic)).mean((1, 2))
            np.testing.assert_allclose(fused[i, n].double().numpy(), slow, atol=1e-5)
    assert fused.any()


def fused_shape(network, batch: Batch) -> tuple[int, int]:
    return tuple(network.backbone.feature_map(batch.images).shape[2:])


def test_a_backbone_whose_features_are_not_the_mean_of_its_map_is_refused(monkeypatch):
    class Normed(BACKBONES["small"]):
        def forward(self, images):
            return torch.nn.functional.normalize(super().forward(images))

    monkeypatch.setitem(BACKBONES, "normed", Normed)
    with pytest.raises(longtail.UsageError, match="not the mean of its last feature map"):
        longtail.train("digits", "fsa", backbone="normed", epochs=1)


def test_the_second_stage_sees_rare_and_frequent_images_alike(digits):
    first, second = recipe_of("fsa", digits).stages
    head, tail = head_and_tail(digits.class_counts)
    images = sum(digits.class_counts)
    assert second.sampling == (SubsetSampling(tail, images), SubsetSampling(head, images))
    assert (second.trainable, second.batch_norm, second.cached_features) == ("head", "eval", False)
    assert {second.schedule.factor(e) for e in range(40)} == {1.0}
    assert first.name == "features"


@pytest.mark.parametrize(
    "bad", [{"fused": 0}, {"confusing": 0}, {"specific": 1.5}, {"generic": -0.1}, {"head_share": 2.0}]
)
def test_numbers_out_of_range_are_refused(bad, digits):
    with pytest.raises(longtail.UsageError, match="fsa: "):
        recipe_of("fsa", digits, **bad)


def test_a_run_killed_in_the_second_stage_goes_on_to_the_same_bits(digits, plain_run, tmp_path, monkeypatch):
    options = {**plain_run, "epochs": 1, "stage2_epochs": 3}
    assert goes_on_to_the_same_bits("fsa", digits, 28, tmp_path, monkeypatch, **options)
