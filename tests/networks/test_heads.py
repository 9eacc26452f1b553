import json
from pathlib import Path

import pytest
import torch
from torch import nn

from longtail.networks import CosineHead, LearnableScalingHead, LinearHead, NearestMeanHead, TauNormHead

CASES = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())["cases"]
TAU = [case for case in CASES if case["id"].startswith("tau_norm")]
NCM = [case for case in CASES if case["id"].startswith("ncm")]


def head_with(weight: torch.Tensor, bias: torch.Tensor) -> LinearHead:
    head = LinearHead(weight.shape[1], weight.shape[0]).to(weight.dtype)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


def random_head(num_features: int = 4, num_classes: int = 3) -> LinearHead:
    torch.manual_seed(0)
    return LinearHead(num_features, num_classes)


def all_heads() -> dict[str, nn.Module]:
    linear = random_head()
    return {
        "linear": linear,
        "cosine": CosineHead(4, 3),
        "scaling": LearnableScalingHead(linear, freeze=False),
        "tau": TauNormHead(linear, 0.5, keep_bias=True),
        "mean-l2": NearestMeanHead(torch.randn(3, 4), torch.randn(4)),
        "mean-cos": NearestMeanHead(torch.randn(3, 4), torch.randn(4), distance="cos"),
    }


@pytest.mark.parametrize("name", all_heads())
def test_heads_compute_in_float32_under_autocast(name):
    head = all_heads()[name]
    features = torch.randn(5, 4)
    expected = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(features)
        from_bfloat16 = head(features.bfloat16())
    assert logits.dtype == from_bfloat16.dtype == torch.float32
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("name", all_heads())
def test_heads_survive_a_state_dict(name):
    first, second = all_heads()[name], all_heads()[name]
    for tensor in second.state_dict().values():
        tensor.normal_()
    second.load_state_dict(first.state_dict())
    features = torch.randn(5, 4)
    assert torch.equal(first(features), second(features))


@pytest.mark.parametrize("name", all_heads())
def test_heads_know_their_sizes(name):
    head = all_heads()[name]
    assert (head.in_features, head.out_features) == (4, 3)


def test_linear_head_starts_kaiming_normal_with_the_default_bias():
    torch.manual_seed(0)
    head = LinearHead(64, 1000)
    assert head.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert 0 < head.bias.abs().max() <= 1 / 8


def test_cosine_head_gives_cosines_of_features_and_class_directions():
    torch.manual_seed(0)
    head = CosineHead(6, 4)
    with torch.no_grad():
        head.weight.mul_(torch.tensor([0.1, 1, 10, 3])[:, None])
    features = torch.randn(5, 6)
    expected = torch.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(7 * features), expected)
    assert head(torch.zeros(1, 6)).tolist() == [[0, 0, 0, 0]]


def test_cosine_head_starts_on_the_unit_sphere():
    torch.testing.assert_close(CosineHead(64, 10).weight.norm(dim=1), torch.ones(10))


def test_scaling_starts_as_the_linear_head_and_trains_only_the_scales():
    linear = random_head()
    head = LearnableScalingHead(linear)
    features = torch.randn(5, 4)
    assert torch.equal(head(features), linear(features))
    assert [name for name, p in head.named_parameters() if p.requires_grad] == ["scale"]
    with torch.no_grad():
        head.scale.copy_(torch.tensor([2.0, 1.0, 0.5]))
    expected = (features @ linear.weight.T + linear.bias) * torch.tensor([2.0, 1.0, 0.5])
    torch.testing.assert_close(head(features), expected)


def test_scaling_can_leave_the_linear_head_trainable():
    assert all(p.requires_grad for p in LearnableScalingHead(random_head(), freeze=False).parameters())


@pytest.mark.parametrize("case", TAU, ids=[case["id"] for case in TAU])
def test_tau_norm_equals_the_official_codes(case):
    weight, bias, features = (
        torch.tensor(case["inputs"][key], dtype=torch.float64) for key in ("weight_CxD", "bias", "features")
    )
    linear = head_with(weight, bias)
    tau = case["hyper"]["tau"]
    dropped, kept = TauNormHead(linear, tau), TauNormHead(linear, tau, keep_bias=True)
    output = {key: torch.tensor(value, dtype=torch.float64) for key, value in case["output"].items()}
    torch.testing.assert_close(dropped.weight, output["weight"], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(dropped(features), output["logits_kang_no_bias"], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(kept(features), output["logits_bagoftricks_bias_kept"], rtol=1e-9, atol=1e-11)


def test_tau_norm_copies_and_keeps_zero_weights_zero():
    linear = head_with(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2))
    head = TauNormHead(linear, 1.0)
    torch.testing.assert_close(head.weight, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert linear.weight.tolist() == [[3.0, 4.0], [0.0, 0.0]]
    assert not list(head.parameters())


@pytest.mark.parametrize("case", NCM, ids=[case["id"] for case in NCM])
def test_nearest_mean_equals_the_official_code(case):
    inputs, output = case["inputs"], case["output"]
    head = NearestMeanHead.from_features(
        torch.tensor(inputs["train_features"]),
        torch.tensor(inputs["train_labels"]),
        num_classes=len(output["centroids"]),
        transform=case["hyper"]["feat_type"],
        distance=case["hyper"]["dist_type"],
    )
    torch.testing.assert_close(head.means, torch.tensor(output["centroids"]), rtol=1e-5, atol=1e-6)
    scores = head(torch.tensor(inputs["query_features"]))
    torch.testing.assert_close(scores, torch.tensor(output["scores"]), rtol=1e-5, atol=1e-5)
    assert scores.argmax(1).tolist() == output["predictions"]


def test_the_papers_default_is_centred_unit_features_and_euclidean_distance():
    torch.manual_seed(0)
    features, targets = torch.randn(20, 4) + 3, torch.arange(20) % 3
    head = NearestMeanHead.from_features(features, targets, 3)
    unit = nn.functional.normalize(features - features.mean(0), dim=1)
    means = torch.stack([unit[targets == k].mean(0) for k in range(3)])
    torch.testing.assert_close(head(features), -torch.cdist(unit, means).square(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distance", ["l2", "cos"])
def test_a_class_without_images_is_never_predicted(distance):
    head = NearestMeanHead.from_features(torch.randn(6, 4), torch.tensor([0, 0, 2, 2, 0, 2]), 4, distance=distance)
    scores = head(torch.randn(5, 4))
    assert (scores[:, [1, 3]] == -torch.inf).all()
    assert scores[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NearestMeanHead(torch.zeros(3, 4), torch.zeros(3)), r"means must be \(C, d\)"),
        (lambda: NearestMeanHead(torch.zeros(3, 4), torch.zeros(4), distance="l1"), "got 'l1'"),
        (
            lambda: NearestMeanHead.from_features(torch.zeros(3, 4), torch.zeros(2, dtype=torch.long), 2),
            r"targets \(N,\)",
        ),
        (
            lambda: NearestMeanHead.from_features(
                torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), 2, transform="c"
            ),
            "got 'c'",
        ),
    ],
)
def test_wrong_use_says_what_is_wrong(build, message):
    with pytest.raises(ValueError, match=message):
        build()
