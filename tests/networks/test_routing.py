"""Routers: a slow version of the official rule, what they may never do, and answers without the skipped experts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from longtail.methods.inference import AverageAsked
from longtail.networks import (
    CosineHead,
    RoutedHead,
    ask_in_turn,
    build_expert_network,
    build_network,
    multiplications,
    running_means,
)


def routed(experts=3, classes=5, seed=0, **options):
    torch.manual_seed(seed)
    network = build_expert_network(
        "small", classes, 1, experts=experts, head=CosineHead, scale=30.0, shared_stem=True, reduced=True
    )
    network.head = RoutedHead(network.head, **options)
    return network.eval()


def images(count=64):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def answers_by_hand(network, batch):
    """Follow each image by itself: ask an expert, score, go on or stop."""
    head, out = network.head, []
    for image in batch:
        features = network.backbone(image[None])[:, 0]
        asked = []
        for k, expert in enumerate(head.experts.heads):
            asked.append(30 * expert(features[k][None])[0])
            if k == len(head.own):
                break
            mean = torch.stack(asked).mean(0)
            direction = features[k] / features[k].norm()
            hidden = (head.own[k].weight @ direction + head.own[k].bias).clamp(min=0)
            seen = torch.cat([mean.sort(descending=True).values[: head.top_k], hidden])
            if torch.sigmoid(head.shared.weight[0] @ seen + head.shared.bias) <= 0.5:
                break
        out.append((torch.stack(asked).mean(0), len(asked)))
    return torch.stack([logits for logits, _ in out]), torch.tensor([used for _, used in out])


SEEDS = (0, 4, 5, 7)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_is_that_of_following_each_image_by_hand(seed):
    network, batch = routed(seed=seed, top_k=3), images()
    with torch.no_grad():
        expected, used = answers_by_hand(network, batch)
        raw = network(batch)
        torch.testing.assert_close(AverageAsked()(raw), expected, rtol=1e-5, atol=1e-4)
        assert torch.equal((~raw.isnan().all(-1)).sum(0), used)
        logits, asked = ask_in_turn(network, batch)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(asked, used)


def test_the_draws_of_these_tests_stop_at_every_number_of_experts():
    with torch.no_grad():
        used = torch.cat([ask_in_turn(routed(seed=seed, top_k=3), images())[1] for seed in SEEDS])
    assert set(used.tolist()) == {1, 2, 3}


@pytest.mark.parametrize("experts", [2, 3, 5])
@pytest.mark.parametrize("bias", [-1e4, 0.0, 1e4])
def test_a_router_never_uses_more_experts_than_there_are_nor_fewer_than_one(experts, bias):
    network = routed(experts)
    with torch.no_grad():
        network.head.shared.bias.fill_(bias)
        raw = network(images())
        answered = ~raw.isnan().any(-1)
        used = ask_in_turn(network, images())[1]
    assert raw.shape[0] == experts
    assert answered[0].all()
    # Once an expert is left out, so are all after it.
    assert (answered[1:] <= answered[:-1]).all()
    assert 1 <= int(used.min()) <= int(used.max()) <= experts
    if bias:
        assert set(used.tolist()) == {1 if bias < 0 else experts}
    if bias > 0:  # all were asked: the answer of the experts without routers
        torch.testing.assert_close(AverageAsked()(raw), network.head.experts(network.backbone(images())).mean(0))


def test_only_routers_learn_and_see_no_more_logits_than_there_are():
    network = routed(classes=5, top_k=30)
    assert network.head.top_k == 5
    trainable = {name.split(".")[0] for name, p in network.head.named_parameters() if p.requires_grad}
    assert trainable == {"own", "shared"}
    with pytest.raises(ValueError, match="two experts or more"):
        routed(experts=1)


def test_scores_are_full_precision_under_autocast():
    network = routed()
    features, logits = torch.randn(3, 6, network.num_features), 30 * torch.randn(3, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        scores = network.head.scores(features.bfloat16().float(), logits)
    assert torch.equal(scores, network.head.scores(features.bfloat16().float(), logits))


def test_running_means():
    logits = torch.randn(4, 3, 5, dtype=torch.float64)
    for number in range(1, 5):
        torch.testing.assert_close(running_means(logits)[number - 1], logits[:number].mean(0))


def test_multiplications_are_the_stored_counts_of_ride_and_grow_by_one_expert_at_a_time():
    cases = json.loads((Path(__file__).parents[1] / "golden" / "networks.json").read_text())["cases"]
    four = next(case for case in cases if case["id"] == "ride_resnet32_M4_reduced")
    network = build_expert_network("resnet32", 100, experts=4, head=CosineHead, shared_stem=True, reduced=True)
    counts = multiplications(network, (3, 32, 32))
    assert counts[-1] == four["output"]["macs_total"]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0
    network.head = RoutedHead(network.head)
    routers = [after - before for after, before in zip(multiplications(network, (3, 32, 32)), counts, strict=True)]
    own = 48 * 16 + 16 + 30
    assert routers == [own, 2 * own, 3 * own, 3 * own]


def test_networks_without_routers_are_refused():
    with pytest.raises(TypeError, match="routers"):
        ask_in_turn(build_expert_network("small", 5, 1).eval(), images(2))
    with pytest.raises(TypeError, match="experts"):
        multiplications(build_network("small", 5, 1), (1, 8, 8))
