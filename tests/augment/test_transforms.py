import pytest
import torch

from longtail.augment import Compose, Normalize, RandomCrop, RandomFlip

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalize_subtracts_the_mean_and_divides_by_the_std(memory_format):
    images = pixels(4, 3, 8, 6)
    out = Normalize(MEAN, STD)(images.contiguous(memory_format=memory_format))
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    expected = (images.double() / 255 - mean) / std
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-6)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_normalize_takes_floats_as_pixels_in_0_to_1():
    images = pixels(2, 3, 4, 4)
    normalize = Normalize(MEAN, STD)
    for dtype in (torch.float32, torch.float64):
        out = normalize(images.to(dtype) / 255)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, normalize(images), rtol=0, atol=2e-6)


def test_normalize_serves_one_channel_and_an_empty_batch():
    out = Normalize((0.5,), (0.25,))(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    torch.testing.assert_close(out, torch.tensor([[[[-2.0, 2.0]]]]))
    assert Normalize(MEAN, STD)(pixels(0, 3, 4, 4)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 1, 4, 4), (2, 4, 4, 3)])
def test_normalize_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="Normalize: "):
        Normalize(MEAN, STD)(pixels(*shape))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.2, 0.2)), ((0.5,), (0.0,)), ((0.5,), (float("nan"),))])
def test_normalize_refuses_wrong_statistics(mean, std):
    with pytest.raises(ValueError, match="one mean and one std above 0"):
        Normalize(mean, std)


def test_compose_applies_in_order_with_one_generator():
    images = pixels(8, 3, 8, 8)
    steps = (RandomCrop(2), RandomFlip(), Normalize(MEAN, STD))
    out = Compose(steps)(images, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    expected = images
    for step in steps:
        expected = step(expected, generator)
    assert torch.equal(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_compose_of_nothing_changes_nothing():
    images = pixels(2, 3, 4, 4)
    assert Compose(())(images, torch.Generator()) is images
