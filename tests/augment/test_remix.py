from __future__ import annotations

import pytest
import torch
from batches import CASES, make_batch, seeded

from longtail.augment import Mixup, Remix
from longtail.augment.remix import remix_shares
from longtail.types import Batch


def test_shares_are_those_of_the_official_code():
    case = CASES["remix_kappa3_tau0.7"]
    hyper, inputs = case["hyper"], case["inputs"]
    counts = torch.tensor(inputs["class_counts"])
    first, second = torch.tensor(inputs["pairs_a_b"]).T
    for lam, expected in zip(inputs["lambdas"], case["output"]["lambda_y_rows_per_lambda"], strict=True):
        shares = remix_shares(
            torch.full((len(first),), lam, dtype=torch.float64),
            counts[first],
            counts[second],
            hyper["kappa"],
            hyper["tau"],
        )
        assert shares.tolist() == expected


@pytest.mark.parametrize(
    ("n_a", "n_b", "lam", "share"),
    [
        (30, 10, 0.49, 0.0),
        (30, 10, 0.5, 0.5),  # lam is not below tau
        (29, 10, 0.1, 0.1),  # not three times larger
        (10, 30, 0.51, 1.0),
        (10, 30, 0.5, 0.5),
        (10, 29, 0.9, 0.9),
        (10, 10, 0.2, 0.2),
        (1, 500, 0.9, 1.0),
    ],
)
def test_the_rule_at_its_defaults(n_a, n_b, lam, share):
    got = remix_shares(torch.tensor([lam]), torch.tensor([n_a]), torch.tensor([n_b]), 3.0, 0.5)
    assert got.item() == pytest.approx(share)


def test_images_are_mixups_and_only_the_shares_differ():
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(64, 3, 4, 4, generator=generator), torch.arange(64) % 2, torch.arange(64))
    plain, remixed = Mixup()(batch, seeded(1)), Remix([90, 10])(batch, seeded(1))
    assert torch.equal(plain.images, remixed.images)
    assert torch.equal(plain.mixed_targets, remixed.mixed_targets)
    changed = plain.lam != remixed.lam
    head_first = (batch.targets == 0) & (plain.mixed_targets == 1)
    tail_first = (batch.targets == 1) & (plain.mixed_targets == 0)
    assert torch.equal(changed, (head_first & (plain.lam < 0.5)) | (tail_first & (plain.lam > 0.5)))
    assert changed.any()
    assert remixed.lam.dtype == torch.float32


def test_on_a_balanced_set_it_is_mixup():
    batch = make_batch()
    batch = Batch(batch.images, batch.targets - 50, batch.indices)
    assert torch.equal(Remix([7] * 8)(batch, seeded()).lam, Mixup()(batch, seeded()).lam)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"kappa must be at least 1, got 0\.5"):
        Remix([3, 1], kappa=0.5)
    with pytest.raises(ValueError, match=r"tau must lie in 0..1, got 2"):
        Remix([3, 1], tau=2)
