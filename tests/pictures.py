"""Folders of made-up photographs."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

HUES = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200), (200, 40, 200)]


def picture(kind: int, k: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """A picture of a class: its colour, with a pattern of its own."""
    generator = np.random.default_rng([kind, k])
    noise = np.kron(generator.integers(-40, 41, (4, 4, 3)), np.ones((8, 8, 1)))
    pixels = np.clip(np.array(HUES[kind % len(HUES)]) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(size)


def make_folder(root: Path, counts: dict[str, int], *, suffix: str = ".png", first: int = 0) -> Path:
    """Write ``counts`` pictures of each class into folders, and return the root."""
    for kind, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            picture(kind, first + k).save(root / name / f"{first + k:03d}{suffix}")
    return root


def png_that_says(width, height):
    """A PNG header of any size, with next to nothing behind it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def jpeg_bytes(size=(64, 64)):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()
