"""An epoch on a mapped cache holds a few batches and not the set; `benchmarks/memory.py` shows it of a whole run."""

from __future__ import annotations

import subprocess
import sys

from pictures import make_folder

MEMORY = """
import sys
import torch
from longtail import data
from longtail.augment import Compose, Normalize
from longtail.sampling import InstanceSampling
from longtail.training.loader import StageLoader, placed
from longtail.training.recipe import SGD, Schedule, Stage
from longtail.training.world import World

torch.set_num_threads(1)

def own_memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

loaded = data.load(sys.argv[1], image_size=int(sys.argv[2]))
stage = Stage(name="x", objective=None, epochs=1, augment=Compose((Normalize(loaded.mean, loaded.std),)), batch_size=2,
              optimizer=SGD(0.1), schedule=Schedule(1))
images = placed(loaded.train.images, torch.device("cpu"))
loader = StageLoader(images, loaded.train.targets, stage, number=0, num_classes=2, seed=0, world=World())
plan = loader.plan(0)
loader.batches(plan, 0, 0)
before, total = own_memory(), 0.0
peak = before
for step in range(plan.steps):
    (batch,), _ = loader.batches(plan, 0, step)
    total += float(batch.images.sum())
    peak = max(peak, own_memory())
print(images.nbytes, peak - before)
"""


def test_an_epoch_takes_no_memory_of_the_set_s_size(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    folder = make_folder(tmp_path / "photos", {"a": 150, "b": 150}, suffix=".jpg")
    words = [sys.executable, "-c", MEMORY, str(folder), "512"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    size, grown = map(int, told)
    assert size > 180e6
    assert grown < 0.4 * size  # a batch of 2 as float32 is 6 MB, and the allocator keeps a few
