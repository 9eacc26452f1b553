"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from longtail import files
from longtail.errors import LongtailError
from longtail.files import explained, whole


def test_a_file_takes_its_name_at_the_end(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_any_file(tmp_path):
    (tmp_path / "plain").touch()
    with whole(tmp_path / "x") as file:
        file.write(b"new")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt(), ValueError("wrong")])
def test_what_goes_wrong_inside_leaves_the_former_file(error, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def half(path: Path) -> None:
        with whole(path) as file:
            file.write(b"ne")
            raise error

    with pytest.raises(type(error)):
        half(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_disk_before_the_name(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), whole(tmp_path / "x") as file:
        file.write(b"new")
    assert not list(tmp_path.iterdir())


def test_the_error_says_what_to_do(tmp_path):
    path = tmp_path / "missing" / "x"
    with pytest.raises(LongtailError, match="x could not be written: No such file") as told, explained(path):
        path.touch()
    assert told.value.fix == "make room or permit writing, then resume"
