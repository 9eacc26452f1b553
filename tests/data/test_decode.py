"""Files to pixels: every format and colour mode, orientation, size, and every way in which a file can be bad."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from longtail.data import decode, read_image
from longtail.data.decode import UnreadableError, open_file, read_header
from longtail.errors import LongtailError
from pictures import jpeg_bytes, png_that_says

RED, BLUE = (220, 30, 30), (30, 30, 220)


def two_halves(mode="RGB", size=(32, 32)):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def halves_of(pixels):
    half = pixels.shape[2] // 2
    return pixels[:, :, : half - 2].mean((1, 2)), pixels[:, :, half + 2 :].mean((1, 2))


COLOUR = [("a.jpg", "RGB"), ("a.jpg", "CMYK"), ("a.png", "RGB"), ("a.png", "P"), ("a.png", "RGBA"), ("a.webp", "RGB"),
          ("a.bmp", "RGB"), ("a.tif", "RGB"), ("a.tiff", "CMYK"), ("a.tif", "YCbCr"), ("a.gif", "P"),
          ("a.webp", "RGBA")]  # fmt: skip


@pytest.mark.parametrize(("name", "mode"), COLOUR)
def test_colour_formats(tmp_path, name, mode):
    two_halves(mode).save(tmp_path / name)
    pixels = read_image(tmp_path / name, 16)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 16, 16))
    assert pixels.flags.c_contiguous
    left, right = halves_of(pixels)
    assert np.abs(left - RED).max() < 12
    assert np.abs(right - BLUE).max() < 12


@pytest.mark.parametrize(("name", "mode"), [("a.png", "L"), ("a.jpg", "L"), ("a.png", "LA"), ("a.tif", "L")])
def test_grey_becomes_three_equal_channels(tmp_path, name, mode):
    Image.new("L", (12, 12), 100).convert(mode).save(tmp_path / name)
    assert np.abs(read_image(tmp_path / name, 8).astype(int) - 100).max() <= 1


def test_black_and_white(tmp_path):
    Image.fromarray(np.eye(16) > 0).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 16)
    assert (pixels == 255 * np.eye(16)).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, name):
    values = (np.arange(256, dtype=np.uint16).reshape(16, 16)) * 257
    Image.fromarray(values).save(tmp_path / name)
    assert (read_image(tmp_path / name, 16)[0] == np.arange(256).reshape(16, 16)).all()


@pytest.mark.parametrize(("top", "scale"), [(1.0, 1 / 255), (255.0, 1.0)])
def test_fractions(tmp_path, top, scale):
    Image.fromarray((np.arange(256).reshape(16, 16) * scale).astype(np.float32)).save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.tif", 16)[0] == np.arange(256).reshape(16, 16)).all(), top


def test_transparent_is_white_whatever_colour_hides_below(tmp_path):
    hidden = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    hidden.save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 8) == 255).all()
    palette = Image.new("P", (16, 16), 3)
    palette.putpalette([0, 0, 0] * 8)
    palette.save(tmp_path / "b.png", transparency=3)
    assert (read_image(tmp_path / "b.png", 8) == 255).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.tif"])
def test_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert np.abs(read_image(tmp_path / name, 8).mean((1, 2)) - RED).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_orientation(tmp_path, name, orientation):
    upright = np.zeros((30, 44, 3), np.uint8)
    upright[:15, :22], upright[:15, 22:], upright[15:, :22] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # turning left undoes turning right
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(decode._TRANSPOSED[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"quality": 95} if name.endswith(("jpg", "webp")) else {}
    stored.save(tmp_path / name, exif=exif, **quality)
    Image.fromarray(upright).save(tmp_path / f"upright-{name}", **quality)
    turned, expected = (read_image(tmp_path / n, 16).astype(int) for n in (name, f"upright-{name}"))
    assert np.abs(turned - expected).mean() < 4
    assert read_image(tmp_path / name, 16)[0, :6, :4].mean() > 200  # red stands in the upper left


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_matter(tmp_path):
    two_halves().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    read_image(tmp_path / "a.jpg", 16)


def test_short_side_is_scaled_and_the_centre_cut(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        assert (read_image(tmp_path / name, 20) == 255).all()


@pytest.mark.parametrize("side", [33, 64, 90])
def test_scaling_is_pillow_s_antialiased_bilinear(tmp_path, side):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(read_image(tmp_path / "a.png", 32).astype(int) - expected.transpose(2, 0, 1)).max() <= 1


def test_large_jpegs_scaled_by_their_decoder_look_the_same(tmp_path):
    generator = np.random.default_rng(0)
    smooth = Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((1600, 1200))
    smooth.save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        slow = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR, box=(200, 0, 1400, 1200)))
    assert np.abs(read_image(tmp_path / "a.jpg", 64).astype(int) - slow.transpose(2, 0, 1)).mean() < 1


BAD = {
    "empty.jpg": (b"", "empty file", "0 bytes"),
    "cut.jpg": (jpeg_bytes()[:-900], "damaged", "truncated"),
    "header.jpg": (jpeg_bytes()[:300], "damaged", "within its header"),
    "start.jpg": (jpeg_bytes()[:5], "damaged", "within its header"),
    "cut.png": (png_that_says(40, 40), "damaged", ""),
    "text.jpg": (b"<html>not found</html>", "not an image", "not JPEG, PNG"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "not an image", "convert it to JPEG"),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image", "not JPEG, PNG"),
    "bomb.png": (png_that_says(60000, 60000), "too large", "pixels"),
    "large.png": (png_that_says(12000, 10001), "too large", "12000x10001"),
    "header.png": (b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, "not an image", ""),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_say_why(tmp_path, name):
    content, kind, detail = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError) as error:
        read_image(tmp_path / name, 16)
    assert error.value.kind == kind
    assert detail in error.value.detail
    assert str(tmp_path / name) in error.value.message


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening one would wait for a writer
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    kinds = {}
    for name in ("pipe.jpg", "loop.jpg", "gone.jpg", "none.jpg", ".", "zero\0byte.jpg"):
        with pytest.raises(UnreadableError) as error:
            read_image(tmp_path / name, 16)
        kinds[name] = error.value.kind
    assert kinds == {
        "pipe.jpg": "not a file", "loop.jpg": "not a file", "gone.jpg": "missing", "none.jpg": "missing",
        ".": "not a file", "zero\0byte.jpg": "no access",
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(UnreadableError) as error:
        read_image(tmp_path / "a.png", 16)
    assert error.value.kind == "no access"


@pytest.mark.parametrize(
    ("name", "size", "oddity"),
    [
        ("a.png", (40, 30), ("", "")),
        ("a", (40, 30), ("", "")),
        ("a.PNG", (40, 30), ("", "")),
        ("a.jpg", (40, 30), ("wrong extension", "PNG called .jpg")),
        ("a.png", (1, 1), ("tiny", "1x1")),
        ("a.png", (20000, 10), ("thin", "20000x10")),
        ("a.png", (80, 10), ("", "")),
    ],
)
def test_oddities_that_are_used(tmp_path, name, size, oddity):
    Image.new("RGB", size, RED).save(tmp_path / name, "PNG")
    with open_file(tmp_path / name) as file:
        header = read_header(file, name)
    assert header[:2] == size
    assert header.oddity(name) == oddity
    assert (read_image(tmp_path / name, 8)[0] == RED[0]).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif", "a.gif"])
@pytest.mark.filterwarnings("ignore")
def test_whatever_the_bytes_are_there_are_pixels_or_a_reason(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    two_halves(size=(24, 20)).save(tmp_path / name, **({} if name.endswith(("bmp", "gif")) else {"exif": exif}))
    content = (tmp_path / name).read_bytes()
    generator = np.random.default_rng(0)
    kinds = set()
    for _ in range(150):
        broken = bytearray(content)
        for place in generator.integers(0, min(len(broken), 400), generator.integers(1, 9)):
            broken[place] = generator.choice([0, 255, generator.integers(256)])
        (tmp_path / name).write_bytes(broken[: generator.integers(1, len(broken) + 1)])
        try:
            assert read_image(tmp_path / name, 8).shape == (3, 8, 8)
        except UnreadableError as error:
            kinds.add(error.kind)
    assert kinds <= {"not an image", "damaged", "too large"}
    assert len(kinds) > 1


def test_too_little_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    two_halves().save(tmp_path / "a.png")

    def no_room(image, size):
        raise MemoryError

    monkeypatch.setattr(decode, "_square", no_room)
    with pytest.raises(LongtailError, match=r"a\.png: no memory left to decode 32x32 pixels") as error:
        read_image(tmp_path / "a.png", 16)
    assert not isinstance(error.value, UnreadableError)
