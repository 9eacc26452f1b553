"""Class-activation masks and moved foregrounds, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from longtail.augment.foreground import activation_masks, draw_moves, move_foregrounds

IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def images_of(count=1, height=6, width=8, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def box(top, bottom, left, right, height=6, width=8):
    mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
    mask[:, :, top:bottom, left:right] = True
    return mask


def test_the_mask_is_where_the_map_is_three_quarters_of_its_mean():
    torch.manual_seed(0)
    maps, weights = torch.randn(2, 5, 4, 4), torch.randn(2, 5)
    masks = activation_masks(maps, weights, (4, 4))
    for image in range(2):
        cam = [
            [sum(float(weights[image, d] * maps[image, d, y, x]) for d in range(5)) for x in range(4)] for y in range(4)
        ]
        flat = [value for row in cam for value in row]
        unit = [(value - min(flat)) / (max(flat) - min(flat)) for value in flat]
        expected = [value >= 0.75 * sum(unit) / 16 for value in unit]
        assert masks[image].flatten().tolist() == expected
    enlarged = activation_masks(maps, weights, (9, 7))
    assert enlarged.shape == (2, 1, 9, 7)


def test_a_map_without_contrast_marks_nothing():
    assert not activation_masks(torch.ones(1, 3, 4, 4), torch.ones(1, 3), (8, 8)).any()


def test_where_nothing_moves_the_image_stays():
    images = images_of()
    same = move_foregrounds(images, box(1, 4, 2, 5), torch.tensor([IDENTITY]))
    torch.testing.assert_close(same, images, atol=1e-6, rtol=0)
    nothing = torch.zeros(1, 1, 6, 8, dtype=torch.bool)
    assert torch.equal(move_foregrounds(images, nothing, draw_moves(nothing)), images)


def test_a_shift_copies_the_box_and_leaves_the_old_one():
    images = images_of()
    moved = move_foregrounds(images, box(1, 3, 2, 5), torch.tensor([[[1.0, 0.0, -3.0], [0.0, 1.0, -2.0]]]))
    expected = images.clone()
    expected[:, :, 3:5, 5:8] = images[:, :, 1:3, 2:5]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_a_mirrored_box_lands_on_the_other_side():
    images = images_of()
    moved = move_foregrounds(images, box(0, 6, 0, 3), torch.tensor([[[-1.0, 0.0, 8.0], [0.0, 1.0, 0.0]]]))
    expected = images.clone()
    expected[:, :, :, 5:] = images[:, :, :, :3].flip(3)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_a_quarter_turn_about_the_centre_of_a_square():
    images = images_of(height=8)
    masks = box(2, 6, 2, 6, height=8)
    matrix = torch.tensor([[[0.0, 1.0, 0.0], [-1.0, 0.0, 8.0]]])  # about (4, 4)
    moved = move_foregrounds(images, masks, matrix)
    expected = images.clone()
    expected[:, :, 2:6, 2:6] = images[:, :, 2:6, 2:6].rot90(-1, (2, 3))
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


@given(st.integers(0, 4), st.integers(1, 6), st.integers(0, 6), st.integers(1, 8), st.integers(0, 1000))
def test_moves_keep_to_their_ranges(top, tall, left, wide, seed):
    masks = box(top, min(top + tall, 6), left, min(left + wide, 8)).expand(30, -1, -1, -1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        moves = draw_moves(masks)
    centre = torch.tensor([left + min(left + wide, 8), top + min(top + tall, 6)]) / 2
    kinds = set()
    for matrix in moves:
        linear, offset = matrix[:, :2], matrix[:, 2]
        if torch.equal(linear, torch.eye(2)):
            kinds.add("shift")
            first = torch.tensor([left, top]) - offset  # a position p of the result shows p + offset
            last = torch.tensor([min(left + wide, 8), min(top + tall, 6)]) - offset
            assert torch.equal(first, first.round())
            assert (first >= 0).all()
            assert (last <= torch.tensor([8, 6])).all()
        elif torch.equal(linear, torch.tensor([[-1.0, 0.0], [0.0, 1.0]])):
            kinds.add("mirror")
            assert offset.tolist() == [8, 0]
        else:
            kinds.add("turn")
            torch.testing.assert_close(linear @ centre + offset, centre, atol=1e-4, rtol=0)
            scale = 1 / linear[0].norm()
            assert 0.8 - 1e-5 <= scale <= 1.2 + 1e-5
            assert abs(math.atan2(linear[0, 1], linear[0, 0])) <= math.radians(45) + 1e-5
    assert len(kinds) == 3


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_images_keep_their_precision_and_shape(precision):
    images = images_of(4).to(precision)
    masks = F.interpolate(torch.rand(4, 1, 3, 4), (6, 8)) > 0.5
    moved = move_foregrounds(images, masks, draw_moves(masks))
    assert moved.dtype == precision
    assert moved.shape == images.shape
