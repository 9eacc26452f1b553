"""Make the folders of the tutorial: scikit-learn's handwritten digits as JPEG files, few of some and many of others.

    python docs/make_tutorial_images.py PHOTOS NEW

PHOTOS gets a folder for each class, from 120 images of zero down to 6 of nine. NEW gets six other images of each,
named after what they show, and one that was cut off. PRIOR.csv beside NEW says how often each will be met.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNTS = (120, 86, 62, 44, 32, 23, 16, 12, 8, 6)
NEW_EACH = 6
SIDE = 48


def main(photos: Path, new: Path) -> None:
    """Write both folders."""
    digits = load_digits()
    new.mkdir(parents=True, exist_ok=True)
    for label, (name, count) in enumerate(zip(NAMES, COUNTS, strict=True)):
        (photos / name).mkdir(parents=True, exist_ok=True)
        pictures = digits.images[digits.target == label]
        for k in range(count):
            enlarged(pictures[k]).save(photos / name / f"{k:03d}.jpg", quality=90)
        for k in range(NEW_EACH):
            enlarged(pictures[-1 - k]).save(new / f"{name}-{k}.jpg", quality=90)
    whole = (new / "zero-0.jpg").read_bytes()
    (new / "cut-off.jpg").write_bytes(whole[: len(whole) // 2])
    lines = ["class,probability", *(f"{name},0.1" for name in NAMES)]
    (new.parent / "prior.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def enlarged(pixels: np.ndarray) -> Image.Image:
    """Return 8x8 values of 0..16 as a picture of 48x48."""
    small = Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
