"""Classes with a single training image: every method of experts, fusion and mixing trains on them."""

from __future__ import annotations

import numpy as np
import pytest

import longtail
from longtail import data

NAMES = [
    *("ce+mixup", "ce+cutmix", "ce+remix", "ce+cmo", "independent-experts", "ride+ea", "bbn", "lfme", "reslt", "sade"),
    *("crt+h2t", "mislas+h2t", "gcl+h2t", "ride+h2t", "reslt+h2t", "ride+cmo", "ace"),
]


@pytest.fixture(scope="module")
def rare() -> data.LongTailData:
    """Digits of which the rarest class has one image."""
    rare = data.load("digits", imbalance=120)
    assert min(rare.class_counts) == 1
    return rare


@pytest.mark.parametrize("name", NAMES)
def test_a_class_with_one_image_is_survived(name, rare, plain_run, tmp_path):
    run = longtail.train(rare, name, out=tmp_path / "run", **plain_run)
    assert all(np.isfinite(line["loss"]) for line in run.history if line.get("loss") is not None)
    assert np.isfinite(run.logits(rare.test.images[:5])).all()
