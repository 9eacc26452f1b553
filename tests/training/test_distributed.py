from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import longtail
from longtail.augment import Compose
from longtail.augment.transforms import uniform
from longtail.data import load
from longtail.request import Task, build_recipe, make_config
from longtail.training.loader import StageLoader
from longtail.training.world import World

# Trains on a network without batch-norm, whose statistics would belong to each process, and without augmentation, of
# which each process draws its own.
PROGRAM = """
import sys
import longtail
from torch import nn
from longtail.augment import Compose, Normalize
from longtail.networks import BACKBONES

def plain(in_channels):
    network = BACKBONES["small"](in_channels)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent = network.get_submodule(name.rpartition(".")[0]) if "." in name else network
            setattr(parent, name.rpartition(".")[2], nn.Identity())
    return network

def normalised(self, images, generator):
    for transform in self.transforms:
        images = transform(images, generator) if isinstance(transform, Normalize) else images
    return images

BACKBONES["plain"] = plain
Compose.__call__ = normalised
longtail.train("digits", sys.argv[1], backbone="plain", protocol="quick", epochs=3, lr=0.02, precision="fp32",
               threads=1, compile="off", device="cpu", out=sys.argv[2], resume=len(sys.argv) > 3,
               **{"l2rw": {"dev_per_class": 5}, "da-meta": {"dev_per_class": 5, "strength": 0.3},
                  "meta-weight-net": {"dev_per_class": 5, "form": "paper", "meta_lr": 1.0},
                  "ce+ssp": {"task": "instance"}, "mbj": {"power": 0.0, "start": 0.3}}.get(sys.argv[1], {}))
"""


@pytest.mark.parametrize(
    "method", ["bsce", "cb-sampling", "crt", "l2rw", "da-meta", "meta-weight-net", "ce+ssp", "mbj"]
)
def test_two_processes_give_the_losses_of_one(method, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run([sys.executable, str(program), method, str(one)], check=True, env=environment)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(program), method, str(two)], check=True, env=environment, capture_output=True)
    losses = [[record["loss"] for record in longtail.load(folder).history] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)
    assert longtail.load(one).metrics["top1"] == pytest.approx(longtail.load(two).metrics["top1"], abs=0.5)


# Trains with batch norm, once as a whole and once with a stop after every 16 steps, of which eleven are an epoch.
STOPPED = """
import sys
from pathlib import Path
import torch
from torch import distributed as dist
import longtail
from longtail import underway
from longtail.training import loop
from reporters import Stop

dist.init_process_group("gloo")
folder, rank, stored = Path(sys.argv[1]), dist.get_rank(), loop.Training._features
if rank > 0:
    underway.network_logits = None  # only the first process looks at the test set

def keep(*args):
    features = stored(*args)
    torch.save(features, folder / f"features-{rank}.pt")
    return features

def train(name, reporter, resume=False):
    return longtail.train("digits", "crt", protocol="quick", epochs=3, stage2_epochs=2, precision="fp32", threads=1,
                          compile="off", device="cpu", out=folder / name, reporter=reporter, resume=resume)

loop.Training._features = keep
train("whole", None)
loop.Training._features = stored
stops = 0
while True:
    try:
        train("stopped", Stop(1), resume=stops > 0)
        break
    except loop.InterruptedRunError:
        stops += 1
assert stops == 3, stops
dist.destroy_process_group()
"""


def test_processes_train_a_classifier_on_the_same_features_and_resume_to_the_same_bits(tmp_path):
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
    program = tmp_path / "program.py"
    program.write_text(STOPPED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(program), str(tmp_path)], check=True, env=environment, capture_output=True)
    first, second = (torch.load(tmp_path / f"features-{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    runs = [longtail.load(tmp_path / name) for name in ("whole", "stopped")]
    losses = [[record["loss"] for record in run.history] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    ours, theirs = (load_file(run.path / "model.safetensors") for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


TWICE = """
import torch
from torch import distributed as dist
from longtail.training.world import joined

for _ in range(2):
    with joined(torch.device("cpu")) as world:
        assert int(world.sum(torch.ones(()))) == world.size == 2
    assert dist.is_initialized()
"""


def test_processes_stay_together_from_one_run_to_the_next(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(TWICE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, str(program)], check=True, env=environment, capture_output=True, timeout=120)


class Noting:
    """Leaves images as they are, and notes what one draw for each of a batch gave."""

    def __init__(self):
        self.draws = []

    def __call__(self, images, generator):
        self.draws.append(uniform((len(images),), generator, images.device))
        return images


@pytest.mark.parametrize("method", ["ce", "cb-sampling", "bsce+cmo"])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_batch_and_each_augments_its_own_part(method, size):
    digits = load("digits")
    config = make_config(
        digits,
        method,
        protocol="quick",
        seed=0,
        backbone=None,
        precision="fp32",
        eval_every=None,
        options={},
    )
    stage = build_recipe(config, Task.of(digits)).stages[0]

    def loader(world, noting):
        images, targets = digits.train.images, digits.train.targets
        noted = replace(stage, augment=Compose([noting, *stage.augment.transforms]))
        return StageLoader(images, targets, noted, number=0, num_classes=10, seed=0, world=world)

    notes = [Noting() for _ in range(1 + size)]
    whole = loader(World(), notes[0])
    shares = [loader(World(rank, size), noting) for rank, noting in enumerate(notes[1:])]
    plan = whole.plan(1)
    for step in range(plan.steps):
        (batch,), weight = whole.batches(plan, 1, step)
        assert weight == 1
        parts = [share.batches(share.plan(1), 1, step) for share in shares]
        for rank, ((part,), part_weight) in enumerate(parts):
            assert torch.equal(part.indices, batch.indices[rank::size])
            assert torch.equal(part.targets, batch.targets[rank::size])
            assert len(part.images) == len(notes[1 + rank].draws[-1]) == len(part)
            assert part_weight == pytest.approx(len(part) * size / len(batch))
        assert sum(w for _, w in parts) == pytest.approx(size)
        shortest = min(len(part) for (part,), _ in parts)
        draws = torch.stack([noting.draws[-1][:shortest] for noting in notes[1:]])
        assert len(draws.unique()) == draws.numel()
