"""The command that makes a run again, and what of it is a change of the defaults."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from longtail.command import budget_changes, command_of, without_folders
from longtail.config import RunConfig
from longtail.data import ImageSet
from longtail.request import make_config, usual_budget


@pytest.fixture
def photographs(digits):
    """Images under a name that trains as photographs do, enough of them for the usual batch."""
    twice = ImageSet(*(torch.cat([part, part]) for part in (digits.train.images, digits.train.targets)))
    return replace(digits, name="places-lt", train=twice, train_indices=digits.train_indices.repeat(2))


@pytest.mark.parametrize("protocol", ["common", "quick"])
@pytest.mark.parametrize(
    "start", [{}, {"weights": "imagenet"}, {"freeze_backbone": True}, {"weights": "imagenet", "freeze_backbone": True}]
)
def test_a_default_run_is_told_without_changes_whatever_it_starts_from(start, protocol, photographs):
    asked = {"protocol": protocol, "seed": 0, "backbone": None, "precision": "auto", "eval_every": None, **start}
    config = make_config(photographs, "ce", options={}, **asked)
    assert budget_changes(config) == {}
    assert "--lr" not in command_of(config, {})
    assert budget_changes(make_config(photographs, "ce", options={"lr": 0.03}, **asked)) == {"lr": 0.03}


def test_the_command_of_a_run_on_own_images_names_their_folder():
    own = RunConfig(
        dataset="birds", method="ce", imbalance=7.5, profile="natural", subset_seed=0, dev_per_class=0,
        protocol="quick", seed=1, backbone="resnet18", budget=asdict(usual_budget("birds", "ce", "quick")),
        source="my birds", fingerprint="0123", image_size=64,
    )  # fmt: skip
    command = command_of(own, {})
    assert command.startswith("longtail train 'my birds' --method ce --protocol quick --seed 1")
    assert "--image-size 64" in command
    assert "--backbone resnet18" in command
    assert "--imbalance" not in command
    assert "--profile" not in command


def test_folders_of_the_machine_are_not_told():
    command = "longtail train cifar100 --out '/home/me/my runs/ce' --data-root=/data --lr 0.1"
    assert without_folders(command) == "longtail train cifar100 --out ce --data-root=data --lr 0.1"
