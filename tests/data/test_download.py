"""Fetching an archive: checked, unpacked whole or not at all. The network is a file:// address here."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from longtail.data import download
from longtail.data.download import Archive, fetch
from longtail.errors import LongtailError


def make_archive(folder, members, name="set.tar.gz"):
    """Write a tar of {name: text} and describe it."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    with tarfile.open(path, "w:gz") as tar:
        for member, text in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return Archive(path.as_uri(), hashlib.md5(path.read_bytes()).hexdigest(), "the-set")


@pytest.fixture
def remote(tmp_path):
    return tmp_path / "remote"


def listing(root):
    return sorted(path.name for path in root.iterdir())


def test_downloads_checks_and_unpacks(remote, tmp_path):
    archive = make_archive(remote, {"the-set/a": "one", "the-set/b": "two", "other/c": "three"})
    root = tmp_path / "new" / "root"
    assert fetch(archive, root) == root / "the-set"
    assert (root / "the-set" / "b").read_text() == "two"
    assert listing(root) == ["the-set"]


def test_an_archive_that_lies_there_is_used(remote, tmp_path):
    archive = make_archive(remote, {"the-set/a": "one"})
    root = tmp_path / "root"
    root.mkdir()
    (remote / "set.tar.gz").rename(root / "set.tar.gz")
    fetch(archive, root)
    assert listing(root) == ["set.tar.gz", "the-set"]


def test_no_network_names_the_local_way(tmp_path):
    archive = Archive((tmp_path / "nowhere.tar.gz").as_uri(), "0" * 32, "the-set")
    with pytest.raises(LongtailError, match=r"nowhere.tar.gz: cannot be downloaded") as error:
        fetch(archive, tmp_path / "root")
    assert str(tmp_path / "root") in error.value.fix
    assert "digits" in error.value.fix
    assert len(str(error.value).splitlines()) == 2
    assert listing(tmp_path / "root") == []


def test_broken_connection(remote, tmp_path, monkeypatch):
    archive = make_archive(remote, {"the-set/a": "one"})

    def stops(*_):
        raise TimeoutError("timed out")

    monkeypatch.setattr(download.shutil, "copyfileobj", stops)
    with pytest.raises(LongtailError, match=r"cannot be downloaded \(timed out\)"):
        fetch(archive, tmp_path / "root")
    assert listing(tmp_path / "root") == []


def test_wrong_sum_leaves_nothing(remote, tmp_path):
    archive = make_archive(remote, {"the-set/a": "one"})
    wrong = Archive(archive.url, "f" * 32, archive.folder)
    with pytest.raises(LongtailError, match=rf"set.tar.gz: MD5 {archive.md5}, but the published archive has ffff"):
        fetch(wrong, tmp_path / "root")
    assert listing(tmp_path / "root") == []


@pytest.mark.parametrize("member", ["../outside", "/absolute/outside", "the-set/../../outside"])
def test_members_that_lead_outside_are_refused(remote, tmp_path, member):
    archive = make_archive(remote, {"the-set/a": "one", member: "evil"})
    root = tmp_path / "root"
    if member.startswith("/"):  # the filter makes it relative, so it stays in the scratch folder
        fetch(archive, root)
    else:
        with pytest.raises(LongtailError, match=r"set.tar.gz: cannot be unpacked"):
            fetch(archive, root)
    assert not list(tmp_path.rglob("outside"))


def test_archive_without_the_folder_or_damaged(remote, tmp_path):
    archive = make_archive(remote, {"another/a": "one"})
    with pytest.raises(LongtailError, match="holds no folder the-set"):
        fetch(archive, tmp_path / "root")
    whole = (remote / "set.tar.gz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no archive at all"):
        (remote / "set.tar.gz").write_bytes(damaged)
        again = Archive(archive.url, hashlib.md5(damaged).hexdigest(), "the-set")
        with pytest.raises(LongtailError, match=r"set.tar.gz: (cannot be unpacked|holds no folder)"):
            fetch(again, tmp_path / "root")
    assert listing(tmp_path / "root") == []


def test_root_that_is_a_file(remote, tmp_path):
    archive = make_archive(remote, {"the-set/a": "one"})
    (tmp_path / "file").write_text("")
    with pytest.raises(LongtailError, match="file: cannot be written"):
        fetch(archive, tmp_path / "file")


def test_another_process_was_faster(remote, tmp_path):
    archive = make_archive(remote, {"the-set/a": "one"})
    (tmp_path / "root" / "the-set").mkdir(parents=True)
    (tmp_path / "root" / "the-set" / "a").write_text("theirs")
    assert (fetch(archive, tmp_path / "root") / "a").read_text() == "theirs"
