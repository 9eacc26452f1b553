from __future__ import annotations

import pytest
import torch
from recipes import recipe_of


def test_every_sigmoid_of_cb_focal_begins_near_one_in_c(digits):
    torch.manual_seed(0)
    network = recipe_of("cb-focal", digits).network("small", 10, 1)
    assert network.head.bias.sigmoid().tolist() == pytest.approx([1 / 10] * 10)
    torch.manual_seed(0)
    plain = recipe_of("cb-ce", digits).network("small", 10, 1)
    assert torch.equal(network.head.weight, plain.head.weight)
    assert not torch.equal(network.head.bias, plain.head.bias)
