"""One image file to pixels: any of six formats and of Pillow's colour modes to a square of uint8 RGB."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from longtail.errors import LongtailError

Pixels = npt.NDArray[np.uint8]

VERSION = 1
"""To be raised when the same file and size give other pixels, so that caches are made again."""

MAX_PIXELS = 120_000_000
"""Largest image that is decoded; JPEGs are counted after their decoder has scaled them down."""

_ONE_AT_A_TIME = 16_000_000  # pixels beyond which threads wait for each other, so that memory stays bounded
_LARGE_IMAGE = threading.Lock()

# Named, since Pillow would otherwise try formats that start other programs. JPEG brings MPO, which phones write.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}
_EXTENSIONS = {
    "JPEG": _JPEG,
    "MPO": _JPEG,
    "PNG": {".png", ".apng"},
    "WEBP": {".webp"},
    "BMP": {".bmp", ".dib"},
    "DIB": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
}
EXTENSIONS = frozenset().union(*_EXTENSIONS.values())
"""Ends of the names of image files, in lower case."""

_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's orientation."""


class UnreadableError(LongtailError):
    """A file that gives no pixels.

    Args:
        path: The file.
        kind: One of `longtail.data.problems.KINDS`.
        detail: What was seen.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str, detail: str) -> None:
        super().__init__(f"{path}: {kind} ({detail})")
        self.kind = kind
        self.detail = detail


class Header(NamedTuple):
    """What an image says of itself before it is decoded."""

    width: int
    height: int
    mode: str
    format: str

    def oddity(self, name: str) -> tuple[str, str]:
        """Return the kind and detail of what is odd about an image that can be used nonetheless; empty if nothing is.

        Args:
            name: Its file name.
        """
        extension = os.path.splitext(name)[1].lower()
        short, long = sorted((self.width, self.height))
        if extension and extension not in _EXTENSIONS[self.format]:
            return "wrong extension", f"{self.format} called {extension}"
        if short < 8:
            return "tiny", f"{self.width}x{self.height}"
        if long > 8 * short:
            return "thin", f"{self.width}x{self.height}"
        return "", ""


def read_header(file: BinaryIO, path: str | os.PathLike[str]) -> Header:
    """Read what an open file says of itself.

    Raises:
        UnreadableError: It is no image of a known format, or too large.
    """
    with _opened(file, path) as image:
        if image.format != "JPEG":
            _check_size(path, image.size)
        return Header(*image.size, image.mode, image.format or "")


def read_image(path: str | os.PathLike[str], size: int) -> Pixels:
    """Read an image file as a square of RGB pixels: the short side scaled to ``size``, the centre cut out.

    JPEG, PNG, WebP, BMP, TIFF and GIF; the first frame or page where there are several. Turned upright as EXIF says.
    Transparent parts become white, 16-bit values are divided by 257, CMYK and palettes become RGB. Scaling is
    antialiased bilinear, as torchvision's; large JPEGs are first scaled by their own decoder to no less than twice
    ``size``, which is several times as fast.

    Args:
        path: The file.
        size: Side of the square.

    Returns:
        uint8, (3, size, size).

    Raises:
        UnreadableError: The file gives no pixels; its ``kind`` says why.
        LongtailError: There is no memory left for it, which says nothing about the file.
    """
    with open_file(path) as file, _opened(file, path) as image:
        image.draft(None, (2 * size, 2 * size))
        _check_size(path, image.size)
        large = image.width * image.height > _ONE_AT_A_TIME
        with _LARGE_IMAGE if large else nullcontext():
            try:
                return _square(image, size)
            except MemoryError as error:
                raise LongtailError(
                    f"{path}: no memory left to decode {image.width}x{image.height} pixels",
                    fix="the file may be whole: free memory, or scale it down",
                ) from error
            except Exception as error:  # broad: see _opened
                raise UnreadableError(path, "damaged", _reason(error)) from error


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that may be anything; never waits for a pipe.

    Raises:
        UnreadableError: It cannot be opened, is empty, or is no regular file.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(path, "not a file", "not a regular file")
        if status.st_size == 0:
            raise UnreadableError(path, "empty file", "0 bytes")
        file = Path(path).open("rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise UnreadableError(path, "missing", "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        kind = "not a file" if getattr(error, "errno", None) in _LOOPS else "no access"
        raise UnreadableError(path, kind, _reason(error)) from error
    with file:
        yield file


_LOOPS = (40, 62)  # ELOOP on Linux and on macOS


@contextmanager
def _opened(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    try:
        image = Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UnreadableError(path, "too large", _reason(error)) from error
    except Exception as error:
        # Broad, here and where files are decoded: Pillow promises no kinds of errors, and what damaged bytes bring up
        # from its plug-ins is whatever their parsing happens to break on. tests/data/test_decode.py has a sample.
        raise UnreadableError(path, *_unopened(file, error)) from error
    with image:
        yield image


def _check_size(path: str | os.PathLike[str], size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadableError(path, "too large", f"{size[0]}x{size[1]}; at most {MAX_PIXELS // 10**6} million pixels")


def _unopened(file: BinaryIO, error: Exception) -> tuple[str, str]:
    """Return kind and detail of a file that Pillow does not open."""
    try:
        file.seek(0)
        start = file.read(12)
    except OSError as failure:
        return "not an image", _reason(failure)
    if start.startswith(b"\xff\xd8\xff"):
        return "damaged", "a JPEG that ends or breaks within its header"
    if start[4:8] == b"ftyp":
        return "not an image", "HEIC, AVIF or a film; convert it to JPEG"
    known = isinstance(error, UnidentifiedImageError)
    return "not an image", "not JPEG, PNG, WebP, BMP, TIFF or GIF" if known else _reason(error)


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:120] or type(error).__name__


def _square(image: Image.Image, size: int) -> Pixels:
    """Decode and cut; the box has fractions of pixels, so that turning before or after is the same."""
    image.load()
    turn = _TRANSPOSED.get(_orientation(image))
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    plain = image if image.mode in ("RGB", "L") else to_rgb(image)
    box = (left, top, left + side, top + side)
    cut = plain.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    if turn is not None:
        cut = cut.transpose(turn)
    return np.ascontiguousarray(np.asarray(cut.convert("RGB")).transpose(2, 0, 1))


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 where there is none or the EXIF is damaged; to be called after decoding."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broad: see _opened; the pixels are there all the same
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any of Pillow's modes as RGB, 8 bits a channel."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: npt.NDArray[np.generic]) -> Pixels:
    """Scale high-depth values by their type's range; Pillow itself would cut them off at 255.

    Whole numbers are 16-bit, whatever they are stored in; fractions lie in 0..1, or in 0..255 where any is above 1.
    """
    numbers = values.astype(np.float32)
    if np.issubdtype(values.dtype, np.floating):
        numbers = np.nan_to_num(numbers)
        scale = 255.0 if numbers.max(initial=0.0) <= 1 else 1.0
    else:
        scale = 1 / 257
    return np.asarray(np.clip(np.rint(numbers * scale), 0, 255), dtype=np.uint8)
