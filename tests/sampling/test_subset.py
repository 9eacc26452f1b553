"""Images of some classes: all of them before any comes again, and none of the others."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail.sampling import ClassIndex, epoch_indices
from longtail.sampling.subset import SubsetSampling

TARGETS = torch.tensor([2, 0, 1, 0, 3, 3, 0, 2, 3, 3])
INDEX = ClassIndex(TARGETS, 5)


def drawn(sampling, epoch=0):
    return epoch_indices(sampling, INDEX, seed=0, epoch=epoch, epochs=3)


@given(
    st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=4, unique=True),
    st.one_of(st.none(), st.integers(1, 50)),
)
def test_images_of_the_classes_come_equally_often(classes, images):
    sampling = SubsetSampling(tuple(classes), images)
    indices = drawn(sampling)
    members = sum(TARGETS.tolist().count(c) for c in classes)
    assert len(indices) == sampling.length(INDEX) == (members if images is None else images)
    assert set(TARGETS[indices].tolist()) <= set(classes)
    counts = torch.bincount(indices, minlength=len(TARGETS))[torch.isin(TARGETS, torch.tensor(classes))]
    assert counts.max() - counts.min() <= 1


def test_epochs_differ_and_repeat_by_seed():
    sampling = SubsetSampling((0, 3), 20)
    assert torch.equal(drawn(sampling), drawn(sampling))
    assert not torch.equal(drawn(sampling), drawn(sampling, epoch=1))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="have no image"):
        drawn(SubsetSampling((4,), 3))
    with pytest.raises(ValueError, match="a class and an image at least"):
        SubsetSampling(())
    with pytest.raises(ValueError, match="images 0"):
        SubsetSampling((1,), 0)
