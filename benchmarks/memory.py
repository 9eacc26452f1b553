"""Training on a set that is larger than the memory that a process may have: does it hold?

Images are written to a scratch folder. A process of its own then trains a few steps on a handful of them, so that
everything is loaded and warm; is forbidden to hold more than ``--headroom`` MiB beyond that (``RLIMIT_DATA``: private
memory, which the read-only map of the decoded cache is no part of); decodes the whole set, trains an epoch on it and
evaluates. At last it asks for a copy of the training images, which the limit must refuse: otherwise it limits nothing.

The exit status is 0 where training ends and the copy is refused. Linux only, for any size of set:
`python benchmarks/memory.py --set 20480 --headroom 512` is a set of 20 GiB; the pages of the map that the system keeps
in memory are counted nowhere, and are given back when others need room.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from longtail.config import provenance

MIB = 1 << 20
SIDE = 224  # of the stored images
FILE_SIDE = 64  # of the files, so that writing and reading them is quick
CLASSES = 4


def write_images(folder: Path, count: int) -> None:
    """Write JPEG files into class folders, the first class the largest."""
    generator = np.random.default_rng(0)
    for k in range(count):
        label = min(int(generator.exponential()), CLASSES - 1)
        path = folder / f"class{label}" / f"{k:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        hue = np.uint8([60 * label, 128, 255 - 60 * label])
        Image.fromarray(hue + generator.integers(0, 40, (FILE_SIDE, FILE_SIDE, 3), dtype=np.uint8)).save(path)


def held() -> int:
    """Return the private memory of this process in bytes, as ``RLIMIT_DATA`` counts it."""
    return _status("VmData")


def _status(name: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name + ":"))


def train(folder: Path) -> None:
    """Train an epoch of the smallest network on the middle of the images, and evaluate it."""
    import longtail

    longtail.train(
        str(folder), "bsce", image_size=SIDE, crop_size=16, backbone="small", epochs=1, batch_size=16,
        out=folder.with_name(f"{folder.name}-run"), precision="fp32", threads=1, compile="off", device="cpu",
    )  # fmt: skip


def measure(scratch: Path, headroom: int) -> dict[str, Any]:
    """Train under the limit, in this process; the limit stays."""
    from longtail import data

    train(scratch / "few")
    warm = held()
    resource.setrlimit(resource.RLIMIT_DATA, (warm + headroom, warm + headroom))
    train(scratch / "set")
    images = data.load(str(scratch / "set"), image_size=SIDE).train.images
    try:
        images.clone()
        refused = False
    except RuntimeError:  # of torch's allocator
        refused = True
    return {"warm": warm, "most_resident": _status("VmHWM"), "training_images": images.nbytes, "copy_refused": refused}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--set", type=int, default=256, help="MiB of the decoded images")
    parser.add_argument("--headroom", type=int, default=96, help="MiB that loading and training may take")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.measure is not None:
        print(json.dumps(measure(asked.measure, asked.headroom * MIB)))
        return 0
    with tempfile.TemporaryDirectory(prefix="longtail-memory-") as scratch:
        write_images(Path(scratch) / "few", 64)
        write_images(Path(scratch) / "set", asked.set * MIB // (3 * SIDE * SIDE))
        words = [sys.executable, __file__, "--measure", scratch, "--headroom", str(asked.headroom)]
        done = subprocess.run(
            words, env={**os.environ, "LONGTAIL_CACHE": f"{scratch}/cache"}, capture_output=True, text=True, check=False
        )
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-2000:]}
    holds = found.get("copy_refused", False)
    report = {"set_mib": asked.set, "headroom_mib": asked.headroom, "holds": holds, **found}
    made_by = provenance()
    if asked.json:
        print(json.dumps({**report, "made_by": made_by}, indent=1))
    else:
        print(", ".join(f"{key} {made_by[key]}" for key in ("processor", "torch", "longtail", "commit")))
        _tell(report)
    return 0 if holds else 1


def _tell(report: dict[str, Any]) -> None:
    print(f"a set of {report['set_mib']:,} MiB, {report['headroom_mib']:,} MiB allowed beyond a warm process")
    if "failed" in report:
        print(f"training failed: {report['failed']}")
    elif not report["copy_refused"]:
        print("training ended, but a copy of the images was allowed too: the limit is not smaller than the set")
    else:
        print(
            f"trained and evaluated; a copy of the {report['training_images'] / MIB:,.0f} MiB of training images was "
            f"refused; warm process {report['warm'] / MIB:,.0f} MiB"
        )


if __name__ == "__main__":
    sys.exit(main())
