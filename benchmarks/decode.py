"""Images per second of reading a folder of JPEGs: the decoded cache beside what people use, measured in one process.

No network is trained: this is the input side alone, an epoch of batches of normalised float32 images each. Contenders,
all with the same number of torch threads, rounds interleaved:

- ``ImageFolder + DataLoader``: torchvision's, `Resize`, `CenterCrop`, `ToTensor`, `Normalize`; 0 and 2 workers. The
  faster one is the reference. Left out where torchvision cannot be imported.
- ``Pillow``: the same by hand, one image after the other, for machines without torchvision.
- ``first epoch``: reading, hashing and decoding into the cache, and an epoch from it.
- ``cache``: a later epoch: batches gathered from the mapped file.
- ``memory``: the same from a tensor in memory: how CIFAR is trained, the limit for the cache.

The images are made up, 500x375 as ImageNet's usually are, with JPEG files of about the usual size.
Run it on an idle machine: `python benchmarks/decode.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longtail import data
from longtail.augment import Normalize
from longtail.config import provenance
from longtail.data import LongTailData

CLASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Epoch = Callable[[], Iterator[Tensor]]


def make_images(folder: Path, count: int, size: tuple[int, int]) -> float:
    """Write JPEGs into class folders, and return their mean size in kB."""
    generator = np.random.default_rng(0)
    for k in range(count):
        # Large shapes and fine grain: flat noise would make files that are far too large.
        shapes = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size)
        grain = generator.integers(-24, 25, (size[1], size[0], 1))
        pixels = np.clip(np.asarray(shapes, dtype=np.int16) + grain, 0, 255).astype(np.uint8)
        path = folder / f"class{k % CLASSES}" / f"{k:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=85)
    return statistics.mean(path.stat().st_size for path in folder.rglob("*.jpg")) / 1000


def image_folder(folder: Path, size: int, batch: int, workers: int) -> Epoch | None:
    """Return torchvision's way; None where torchvision cannot be imported."""
    try:
        from torchvision import datasets, transforms
    except (ImportError, RuntimeError):  # RuntimeError: a torchvision for another torch
        return None
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    images = datasets.ImageFolder(str(folder), transforms.Compose([*steps, transforms.Normalize(MEAN, STD)]))
    loader = torch.utils.data.DataLoader(images, batch, shuffle=True, num_workers=workers)
    return lambda: (batch_images for batch_images, _ in loader)


def pillow(folder: Path, size: int, batch: int) -> Epoch:
    """Return the same way without torchvision: one image after the other."""
    paths = sorted(folder.rglob("*.jpg"))
    normalize = Normalize(MEAN, STD)

    def read(path: Path) -> np.ndarray[Any, Any]:
        with Image.open(path) as image:
            short = min(image.size)
            scaled = image.convert("RGB").resize([round(side * size / short) for side in image.size])
        left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
        return np.asarray(scaled.crop((left, top, left + size, top + size))).transpose(2, 0, 1)

    def epoch() -> Iterator[Tensor]:
        for start in range(0, len(paths), batch):
            yield normalize(torch.from_numpy(np.stack([read(path) for path in paths[start : start + batch]])))

    return epoch


def gathered(images: Tensor, batch: int) -> Epoch:
    """Return our way from a tensor, mapped or in memory."""
    normalize = Normalize(MEAN, STD)

    def epoch() -> Iterator[Tensor]:
        for indices in torch.split(torch.randperm(len(images)), batch):
            yield normalize(images.index_select(0, indices))

    return epoch


def load(folder: Path, size: int) -> LongTailData:
    """Load the folder, from the cache if it is there."""
    return data.load(str(folder), image_size=size)


def images_per_second(epoch: Epoch) -> float:
    """Return the images of one epoch divided by its time."""
    began, images = time.perf_counter(), 0
    for batch in epoch():
        images += len(batch)
    return images / (time.perf_counter() - began)


def first_epoch(folder: Path, size: int, batch: int) -> float:
    """Return images per second of decoding everything and of one epoch, over all files."""
    shutil.rmtree(os.environ["LONGTAIL_CACHE"], ignore_errors=True)
    began = time.perf_counter()
    loaded = load(folder, size)
    for _ in gathered(loaded.train.images, batch)():
        pass
    return (len(loaded.train) + len(loaded.test)) / (time.perf_counter() - began)


def measure(folder: Path, size: int, batch: int, repeats: int) -> dict[str, float]:
    """Return the median images per second of each contender."""
    loaded = load(folder, size)
    timed: dict[str, Callable[[], float]] = {}
    for workers in (0, 2):
        epoch = image_folder(folder, size, batch, workers)
        if epoch is not None:
            name = f"ImageFolder + DataLoader, {workers} workers"
            timed[name] = lambda epoch=epoch: images_per_second(epoch)  # type: ignore[misc]
    timed["Pillow"] = lambda: images_per_second(pillow(folder, size, batch))
    timed["first epoch"] = lambda: first_epoch(folder, size, batch)
    timed["cache"] = lambda: images_per_second(gathered(load(folder, size).train.images, batch))
    memory = loaded.train.images.clone()
    timed["memory"] = lambda: images_per_second(gathered(memory, batch))
    timed["cache"]()  # the pages of the file are in memory once they have been read
    values: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(repeats):
        for name in list(timed) if repeat % 2 == 0 else reversed(timed):
            values[name].append(timed[name]())
    return {name: statistics.median(found) for name, found in values.items()}


def report(speeds: dict[str, float]) -> list[dict[str, Any]]:
    """Return one row per contender, with its ratio to the faster reference and to the memory path."""
    usual = [value for name, value in speeds.items() if name.startswith("ImageFolder")] or [speeds["Pillow"]]
    return [
        {
            "contender": name,
            "images_per_second": round(value, 1),
            "to_reference": round(value / max(usual), 2),
            "to_memory": round(value / speeds["memory"], 3),
        }
        for name, value in speeds.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--size", type=int, default=224, help="training size")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory(prefix="longtail-decode-") as scratch:
        before = os.environ.get("LONGTAIL_CACHE")
        os.environ["LONGTAIL_CACHE"] = f"{scratch}/cache"
        try:
            kilobytes = make_images(Path(scratch) / "images", asked.images, (asked.width, asked.height))
            rows = report(measure(Path(scratch) / "images", asked.size, asked.batch_size, asked.repeats))
        finally:
            os.environ.pop("LONGTAIL_CACHE")
            if before is not None:
                os.environ["LONGTAIL_CACHE"] = before
    if asked.json:
        machine = {"threads": asked.threads, "cpus": os.cpu_count(), "mean_kilobytes": round(kilobytes, 1)}
        print(
            json.dumps({"machine": machine, "arguments": vars(asked), "rows": rows, "made_by": provenance()}, indent=1)
        )
        return
    made_by = provenance()
    print(", ".join(f"{key} {made_by[key]}" for key in ("processor", "torch", "longtail", "commit")))
    print(f"{asked.images} JPEGs, {asked.width}x{asked.height}, {kilobytes:.0f} kB each, to {asked.size}x{asked.size}")
    for row in rows:
        print(
            f"{row['contender']:<36}{row['images_per_second']:>10,.0f} images/s"
            f"{row['to_reference']:>8.2f} x reference{row['to_memory']:>8.3f} x memory"
        )


if __name__ == "__main__":
    main()
