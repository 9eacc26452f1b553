"""The records that travel between the parts."""

import torch

from longtail.types import Batch

TARGETS, OTHERS, LAM = torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([0.25, 1.0])


def test_a_plain_batch_has_its_classes_and_no_shares():
    targets, shares = Batch(torch.empty(2, 0), TARGETS, torch.arange(2)).labels()
    assert targets is TARGETS
    assert shares is None


def test_anyone_s_images_are_numbered_as_they_stand():
    batch = Batch.of(torch.empty(2, 0), TARGETS)
    assert (len(batch), batch.indices.tolist(), batch.mixed_targets) == (2, [0, 1], None)


def test_a_mixed_batch_has_the_classes_of_both_images_with_their_shares():
    targets, shares = Batch(torch.empty(2, 0), TARGETS, torch.arange(2), OTHERS, LAM).labels()
    assert targets.tolist() == [0, 1, 2, 0]
    assert shares.tolist() == [0.25, 1.0, 0.75, 0.0]
