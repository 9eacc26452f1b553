"""Images per second of training on a folder of image files beside training on the same images in memory.

A data set of arrays is written as PNG files, so that both runs train on the same pixels. The folder's run decodes them
into the cache once, before the clock starts; then both train the same method, runs interleaved, and the median of all
epochs but each run's first is compared.

Run it on an idle machine: `python benchmarks/cached_folder.py` (CIFAR-100-LT at imbalance 100), or `--dataset digits`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import longtail
from longtail import data
from longtail.config import provenance
from longtail.data import ImageSet, LongTailData
from longtail.request import usual_budget
from longtail.training.budget import default_backbone


def write_images(folder: Path, images: ImageSet, class_names: tuple[str, ...]) -> None:
    """Write a set as PNG files in class folders."""
    for name in class_names:
        (folder / name).mkdir(parents=True)
    for k, (pixels, label) in enumerate(zip(images.images, images.targets.tolist(), strict=True)):
        array = pixels.permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(array).save(folder / class_names[label] / f"{k:06d}.png")


def measure(memory: LongTailData, scratch: Path, epochs: int, repeats: int, threads: int) -> dict[str, list[float]]:
    """Return the images per second of each counted epoch from memory and from the folder."""
    for split, images in (("train", memory.train), ("test", memory.test)):
        write_images(scratch / "images" / split, images, memory.class_names)
    folder = data.load(str(scratch / "images"), image_size=memory.image_shape[1])
    budget = usual_budget(memory.name, "ce", "quick")
    settings: dict[str, Any] = {
        "protocol": "quick", "backbone": default_backbone(memory.name, memory.image_shape), "threads": threads,
        "compile": "off", "lr": budget.lr, "batch_size": budget.batch_size, "epochs": epochs,
    }  # fmt: skip
    found: dict[str, list[float]] = {"memory": [], "folder": []}
    for repeat in range(repeats):
        for name, source in (("memory", memory), ("folder", folder)):
            run = longtail.train(source, "ce", out=scratch / f"{name}-{repeat}", **settings)
            found[name] += [record["images_per_second"] for record in run.history[1:]]
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dataset", default="cifar100")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each run; the first is not counted")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    memory = data.load(asked.dataset)
    with tempfile.TemporaryDirectory(prefix="longtail-folder-") as scratch:
        before = os.environ.get("LONGTAIL_CACHE")
        os.environ["LONGTAIL_CACHE"] = f"{scratch}/cache"
        try:
            found = measure(memory, Path(scratch), asked.epochs, asked.repeats, asked.threads)
        finally:
            os.environ.pop("LONGTAIL_CACHE")
            if before is not None:
                os.environ["LONGTAIL_CACHE"] = before
    medians = {name: statistics.median(values) for name, values in found.items()}
    made_by = provenance()
    ratio = medians["folder"] / medians["memory"]
    if asked.json:
        content = {"arguments": vars(asked), "epochs": found, "median": medians, "folder_to_memory": ratio}
        print(json.dumps({**content, "made_by": made_by}, indent=1))
        return
    print(", ".join(f"{key} {made_by[key]}" for key in ("processor", "torch", "longtail", "commit")))
    print(f"{asked.dataset}, {len(memory.train):,} training images, ce, quick, threads {asked.threads}")
    for name, values in found.items():
        print(f"{name:<8}{medians[name]:>9,.0f} images/s    epochs {' '.join(f'{value:.0f}' for value in values)}")
    print(f"folder: {ratio:.3f} x memory (at least 0.95)")


if __name__ == "__main__":
    main()
