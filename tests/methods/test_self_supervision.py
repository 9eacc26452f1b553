import math

import pytest
import torch
import torch.nn.functional as F
from recipes import recipe_of
from torch import nn

import longtail
from longtail.augment import ColorJitter, Grey, Normalize, RandomCrop, RandomFlip, RandomResizedCrop, Sometimes
from longtail.losses import cross_entropy_loss
from longtail.methods.feature_queue import FeatureQueue
from longtail.methods.self_supervision import (
    InstanceDiscrimination,
    MomentumEncoder,
    PretextHead,
    RotationPrediction,
    embed,
    features_of,
    projection,
    strong_view,
)
from longtail.networks import LearnableScalingHead, LinearHead, build_expert_network, build_network
from longtail.training.budget import augmentation_for
from longtail.types import Batch, Progress

PROGRESS = Progress(0, 1)


def network_with(pretext, aside=True, seed=0):
    torch.manual_seed(seed)
    network = build_network("small", 10, 1)
    network.head = PretextHead(network.head, pretext, aside=aside)
    return network


def batch_of(count, seed=0):
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.arange(count) % 10, torch.arange(count))


def test_the_slow_copy_follows_by_one_minus_m():
    network = network_with(projection(64))
    encoder = MomentumEncoder(network, 0.9)
    slow = [p.clone() for p in encoder.network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    encoder.follow(network)
    for before, after in zip(slow, encoder.network.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.1)
        assert not after.requires_grad
    assert all(p.requires_grad for p in network.backbone.parameters())


def test_keys_come_in_the_images_order():
    network = network_with(projection(64))
    encoder = MomentumEncoder(network)
    encoder.network.eval()  # so that the halves of the batch do not matter
    network.eval()
    images = batch_of(9).images
    torch.testing.assert_close(encoder(images), embed(network, images))


def test_keys_are_not_of_the_querys_batch_statistics():
    network = network_with(projection(64))
    images = batch_of(16).images
    assert not torch.allclose(MomentumEncoder(network)(images), embed(network, images), atol=1e-3)


def test_the_queue_is_first_in_first_out_for_any_batch():
    queue = FeatureQueue(5, 2)
    assert queue.targets.tolist() == [-1] * 5
    torch.testing.assert_close(queue.features.norm(dim=1), torch.ones(5))
    history = []
    for size in (2, 2, 3, 1, 4):
        targets = torch.arange(len(history), len(history) + size)
        queue.push(targets[:, None].expand(-1, 2).float(), targets)
        history += targets.tolist()
        latest = sorted(history[-5:])
        assert sorted(t for t in queue.targets.tolist() if t >= 0) == latest
        assert all(k == t for t, (k, _) in zip(queue.targets.tolist(), queue.features.tolist(), strict=True) if t >= 0)
    queue.push(torch.arange(7.0)[:, None].expand(-1, 2), torch.arange(7))  # more than it holds
    assert sorted(queue.targets.tolist()) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("own_class", ["code", "formula"])
def test_loss_and_queue_of_two_steps_by_hand(own_class):
    network = network_with(projection(64))
    objective = InstanceDiscrimination(8, own_class=own_class, temperature=0.5, momentum=0.5)
    objective.prepare(network, network)
    objective.encoder.network.eval()
    network.eval()
    one, two = batch_of(4), batch_of(4, seed=1)
    keys_then = embed(network, two.images).detach()
    objective(network, (one, two), PROGRESS)
    assert objective.queue.targets.tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
    torch.testing.assert_close(objective.queue.features[:4], keys_then)
    queue, labels = objective.queue.features.clone(), objective.queue.targets.tolist()
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.mul_(1.1)
    value = objective(network, (one, two), PROGRESS)
    queries, keys = embed(network, one.images).detach(), objective.encoder(two.images)
    expected = 0.0
    for b in range(4):
        positive = math.exp(float(queries[b] @ keys[b]) / 0.5)
        others = [
            math.exp(float(queries[b] @ queue[k]) / 0.5)
            for k in range(8)
            if own_class == "formula" or labels[k] != int(one.targets[b])
        ]
        expected -= math.log(positive / (positive + sum(others))) / 4
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert all(p.grad is not None for p in network.head.pretext.parameters())
    assert all(p.grad is None for p in objective.parameters())


def test_a_batch_of_the_queues_own_class_only_stays_finite():
    network = network_with(projection(64))
    objective = InstanceDiscrimination(4, own_class="code")
    objective.prepare(network, network)
    images = batch_of(4).images
    batch = Batch(images, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    objective(network, (batch, batch), PROGRESS)
    loss = objective(network, (batch, batch), PROGRESS)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_the_rotation_loss_is_cross_entropy_of_the_angle():
    network = network_with(LinearHead(64, 4)).eval()
    images = batch_of(8).images
    torch.manual_seed(3)
    value = RotationPrediction()(network, (batch_of(8),), PROGRESS)
    torch.manual_seed(3)
    order = torch.randperm(8)
    turned = torch.cat([images[part].rot90(k, (2, 3)) for k, part in enumerate(order.tensor_split(4))])
    logits = network.head.pretext(network.features(turned))
    expected = -logits.log_softmax(1)[torch.arange(8), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])].mean()
    torch.testing.assert_close(value, expected)


def test_experts_tell_the_rotation_each_for_themselves():
    network = build_expert_network("small", 10, 1, experts=3)
    network.head = PretextHead(network.head, LinearHead(features_of(network.head), 4), aside=True)
    torch.manual_seed(3)
    value = RotationPrediction()(network, (batch_of(8),), PROGRESS)
    assert value.ndim == 0
    images = batch_of(8).images
    torch.manual_seed(3)
    order = torch.randperm(8)
    turned = torch.cat([images[part].rot90(k, (2, 3)) for k, part in enumerate(order.tensor_split(4))])
    logits = network.head.pretext(network.features(turned))
    turns = torch.arange(4).repeat_interleave(2)
    expected = torch.stack([cross_entropy_loss(each, turns).mean() for each in logits]).mean()
    torch.testing.assert_close(value, expected)


def test_a_waiting_classifier_trains_again_when_released():
    linear = LinearHead(64, 10)
    scaled = LearnableScalingHead(linear)
    head = PretextHead(scaled, nn.Identity(), aside=True)
    features = torch.randn(3, 64)
    torch.testing.assert_close(head(features), scaled(features))
    assert not any(p.requires_grad for p in head.parameters())
    released = head.released()
    assert released is scaled
    assert {name for name, p in released.named_parameters() if p.requires_grad} == {"scale"}
    beside = PretextHead(LinearHead(64, 10), nn.Identity(), aside=False)
    assert all(p.requires_grad for p in beside.parameters())


def test_embeddings_have_length_one():
    network = network_with(projection(64))
    embeddings = embed(network, batch_of(5).images)
    assert embeddings.shape == (5, 128)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    assert F.normalize(embeddings, dim=1).dtype == torch.float32


def test_the_queue_is_a_multiple_of_the_batch_within_an_epoch(digits):
    stage = recipe_of("ssd", digits, task="instance", batch_size=50).stages[0]
    images = len(digits.train)
    assert len(stage.objective.self_supervised.queue.targets) == images // 50 * 50 <= images


def test_heads_that_hide_their_width_are_refused():
    with pytest.raises(longtail.UsageError, match="Identity does not say how wide"):
        features_of(nn.Identity())


@pytest.mark.parametrize(
    ("dataset", "placed"),
    [
        ("cifar100", (RandomCrop(4), RandomFlip())),
        ("imagenet-lt", (RandomResizedCrop(224, scale=(0.2, 1.0)), RandomFlip())),
        ("inat18", (RandomResizedCrop(224, scale=(0.2, 1.0)), RandomFlip())),
    ],
)
def test_the_strong_view_is_moco_s_and_jitters_once(dataset, placed):
    mean, std = (0.5,) * 3, (0.2,) * 3
    jitter = Sometimes(ColorJitter(0.4, 0.4, 0.4, 0.1), 0.8)
    view = strong_view(augmentation_for(dataset, mean, std, 32 if dataset == "cifar100" else 224))
    assert view.transforms == (*placed, jitter, Sometimes(Grey(), 0.2), Normalize(mean, std))
