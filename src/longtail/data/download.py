"""Fetch an official archive, check it and unpack it, so that a folder is there whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from longtail.errors import LongtailError

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Archive:
    """A tar archive on the network.

    Attributes:
        url: Where it is.
        md5: Its published MD5 sum; it tells a damaged archive from a whole one.
        folder: The one folder inside that is wanted.
    """

    url: str
    md5: str
    folder: str

    @property
    def file_name(self) -> str:
        """The archive's own file name."""
        return self.url.rsplit("/", 1)[-1]


def fetch(archive: Archive, root: Path) -> Path:
    """Make ``root / archive.folder``, from the archive in ``root`` if it lies there, else from the network.

    Args:
        archive: What to fetch.
        root: Folder of the data sets; made if missing.

    Returns:
        The unpacked folder.

    Raises:
        LongtailError: The network or the disk failed, the sum is wrong, or the archive is damaged, leads outside its
            folder or does not hold the folder. Nothing half done is left behind.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as scratch:
            local = root / archive.file_name
            source = local if local.is_file() else _download(archive, Path(scratch) / archive.file_name)
            _check_sum(archive, source)
            return _unpack(archive, source, Path(scratch) / "unpacked", root)
    except OSError as error:
        raise LongtailError(
            f"{root}: cannot be written ({error.strerror or error})", fix="name another root"
        ) from error


def _download(archive: Archive, path: Path) -> Path:
    _LOG.info("downloading %s", archive.url)
    try:
        with urllib.request.urlopen(archive.url, timeout=_TIMEOUT_SECONDS) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file, _CHUNK)
    except (OSError, HTTPException) as error:  # URLError, time-outs and broken connections are OSErrors
        reason = getattr(error, "reason", None) or error
        raise LongtailError(
            f"{archive.url}: cannot be downloaded ({reason})",
            fix=f"put {archive.file_name} into {path.parent.parent.resolve()} yourself, "
            "or use digits, which needs no download",
        ) from error
    return path


def _check_sum(archive: Archive, path: Path) -> None:
    with path.open("rb") as file:
        seen = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if seen != archive.md5:
        raise LongtailError(
            f"{archive.file_name}: MD5 {seen}, but the published archive has {archive.md5}",
            fix="the file is damaged or another one: delete it if it is yours, then download again",
        )


def _unpack(archive: Archive, source: Path, scratch: Path, root: Path) -> Path:
    try:
        with tarfile.open(source) as tar:
            tar.extractall(scratch, filter="data")  # refuses members that lead outside
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise LongtailError(
            f"{archive.file_name}: cannot be unpacked ({error})", fix="delete the file, then download again"
        ) from error
    if not (scratch / archive.folder).is_dir():
        raise LongtailError(f"{archive.file_name}: holds no folder {archive.folder}")
    target = root / archive.folder
    try:
        os.replace(scratch / archive.folder, target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, and its folder is whole
            raise
    return target
