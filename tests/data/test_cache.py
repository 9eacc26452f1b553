"""The decoded cache: made once, whole or not at all, by one process; mapped and never copied."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail import data, files
from longtail.data import cache, scan
from longtail.data.cache import cache_root, open_cache
from longtail.data.decode import UnreadableError
from longtail.errors import LongtailError
from pictures import jpeg_bytes, make_folder, picture


def silent(what, done, total):
    pass


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A cache folder of its own."""
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos", {"a": 8, "b": 4})


def old(folder):
    """Make the files look as if they had been there for a while."""
    for path in folder.rglob("*.*"):
        os.utime(path, ns=(10**18, 10**18))


def never(*args, **kwargs):
    raise AssertionError("nothing should be read again")


def test_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x"
    monkeypatch.delenv("LONGTAIL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "y"))
    assert cache_root() == tmp_path / "y" / "longtail"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "longtail"


def test_a_second_load_opens_no_file(root, folder, monkeypatch):
    old(folder)
    first = data.load(str(folder))
    monkeypatch.setattr(cache, "read_image", never)
    monkeypatch.setattr(scan, "open_file", never)
    second = data.load(str(folder))
    assert torch.equal(first.train.images, second.train.images)
    assert first.origin == second.origin


def test_what_only_moved_is_read_but_not_decoded(root, folder, tmp_path, monkeypatch):
    first = data.load(str(folder))
    monkeypatch.setattr(cache, "read_image", never)
    elsewhere = folder.rename(tmp_path / "elsewhere")
    (elsewhere / "a" / "000.png").rename(elsewhere / "a" / "renamed.png")
    second = data.load(str(elsewhere))
    os.utime(elsewhere / "a" / "001.png")
    assert data.load(str(elsewhere)).origin.cache == first.origin.cache == second.origin.cache


def test_a_changed_file_is_seen_at_once(root, folder):
    before = data.load(str(folder))
    replaced = folder / "a" / "000.png"
    status = replaced.stat()
    other = picture(1, 77)
    other.save(replaced)
    os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns))  # in the same instant, as far as the clock tells
    after = data.load(str(folder))
    assert after.origin.fingerprint != before.origin.fingerprint
    assert after.origin.cache != before.origin.cache


def test_settings_are_part_of_the_key(root, folder):
    caches = {data.load(str(folder), image_size=size).origin.cache for size in (8, 16, 24)}
    assert len(caches) == 3


def test_images_are_mapped_and_not_copied(root, folder):
    loaded = data.load(str(folder))
    size = loaded.train.images[0].numel()
    with open("/proc/self/maps") as maps:
        mapped = [line for line in maps if "pixels.u8" in line and loaded.origin.cache in line]
    assert mapped
    assert all("r--s" in line for line in mapped)  # shared and read-only: counts against nobody's memory
    for images, count in ((loaded.train, 9), (loaded.test, 3)):
        assert images.images.is_contiguous()
        assert images.images.numel() == count * size
    raw = np.fromfile(os.path.join(loaded.origin.cache, "pixels.u8"), np.uint8)
    assert (raw[: 9 * size] == loaded.train.images.numpy().ravel()).all()


def test_damaged_files_leave_no_row(root, tmp_path):
    paths = []
    for k in range(70):
        paths.append(tmp_path / f"{k}.jpg")
        content = jpeg_bytes()
        paths[k].write_bytes(content[:-900] if k in (0, 33, 69) else content[:-2] + b"\xff\xd9")
    made = open_cache("x", paths, 8, silent)
    assert sorted(made.damaged) == [0, 33, 69]
    assert made.damaged[33][0] == "damaged"
    assert made.decoded.tolist() == [k for k in range(70) if k not in made.damaged]
    assert len(made.images()) == 67
    again = open_cache("x", paths, 8, never)
    assert again.damaged == made.damaged
    assert again.decoded.tolist() == made.decoded.tolist()


@pytest.mark.parametrize("harm", ["cut", "facts", "format", "gone"])
def test_a_cache_that_is_not_whole_is_made_again(root, folder, harm):
    first = data.load(str(folder))
    pixels, expected = os.path.join(first.origin.cache, "pixels.u8"), first.train.images.clone()
    facts = os.path.join(first.origin.cache, "cache.json")
    if harm == "cut":
        # A new file, as a process that mapped the old one would be killed by reading beyond its end.
        content = Path(pixels).read_bytes()[:-1]
        os.unlink(pixels)
        Path(pixels).write_bytes(content)
    elif harm == "facts":
        with open(facts, "w") as file:
            file.write("{")
    elif harm == "format":
        with open(facts) as file:
            content = json.load(file)
        with open(facts, "w") as file:
            json.dump({**content, "format": 0}, file)
    else:
        os.unlink(pixels)
    assert torch.equal(data.load(str(folder)).train.images, expected)


def test_no_room(root, folder, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(LongtailError, match=r"the decoded images take 0\.0 GB") as error:
        data.load(str(folder))
    assert "LONGTAIL_CACHE" in error.value.fix
    assert not [path for path in root.glob("*px*") if path.is_dir()]


def test_a_disk_that_fills_up_leaves_nothing(root, folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(LongtailError, match=r"cannot be written \(No space left on device\)"):
        data.load(str(folder))
    assert not [path for path in root.iterdir() if path.is_dir() and path.name != "files"]


def test_a_cache_folder_that_cannot_be(tmp_path, folder, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "file"))
    with pytest.raises(LongtailError, match="cannot be written") as error:
        data.load(str(folder))
    assert "LONGTAIL_CACHE" in error.value.fix


@pytest.fixture
def large_subset(root, tmp_path, monkeypatch):
    """Makes a subset of a cache, which is taken for too large to be held in memory."""
    monkeypatch.setattr(cache, "_COPIED", 0)
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for k, path in enumerate(paths):
        picture(k, 9).save(path)
    made = open_cache("x", paths, 8, silent)
    return lambda: made.subset(made.images(), np.array([0, 2, 3, 5]))


def test_a_large_subset_is_a_file_that_need_not_be_written_again(root, large_subset, monkeypatch):
    """Nor locked: the folder may be another's, to be read only."""
    first = large_subset()
    assert len(list(root.glob("x/rows-*.u8"))) == 1

    def read_only(path, *args, **keywords):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", read_only)
        disk.setattr(fcntl, "flock", read_only)
        second = large_subset()
    assert torch.equal(first, second)
    assert torch.equal(first, open_cache("x", [], 8, never).images()[[0, 2, 3, 5]])


def test_a_large_subset_without_room(root, large_subset, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(LongtailError, match=r"has 0\.0 GB free"):
        large_subset()
    assert not list(root.glob("x/rows-*"))


def test_a_large_subset_on_a_disk_that_fills_up_leaves_nothing(root, large_subset, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(LongtailError, match=r"cannot be written \(No space left on device\)") as error:
        large_subset()
    assert "LONGTAIL_CACHE" in error.value.fix
    assert not [path for path in root.glob("x/*rows-*") if path.suffix != ".lock"]


def test_what_is_left_of_a_large_subset_is_removed(root, large_subset):
    large_subset()
    (whole,) = root.glob("x/rows-*.u8")
    left_over = whole.with_name(f".{whole.name}.1234.part")
    whole.rename(left_over)
    large_subset()
    assert whole.exists()
    assert not left_over.exists()


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS])
def no_locks(request, monkeypatch):
    """A file system without locks."""

    def flock(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_without_locks_nobody_s_work_is_removed(root, folder, no_locks):
    cache_folder = Path(data.load(str(folder)).origin.cache)
    live = cache_folder.with_name(f".{cache_folder.name}.1234.part")
    cache_folder.rename(live)
    data.load(str(folder))
    assert cache_folder.exists()
    assert live.exists()


def test_without_locks_the_first_of_two_caches_stays(root, tmp_path, no_locks, monkeypatch):
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for k, path in enumerate(paths):
        picture(k, 9).save(path)
    real, first = cache.read_image, []

    def while_another_is_faster(path, size):
        if path == paths[-1]:
            monkeypatch.setattr(cache, "read_image", real)
            open_cache("x", paths, size, silent)
            first.append((root / "x" / "pixels.u8").stat().st_ino)
        return real(path, size)

    monkeypatch.setattr(cache, "read_image", while_another_is_faster)
    made = open_cache("x", paths, 8, silent)
    assert len(made.images()) == 6
    assert [(root / "x" / "pixels.u8").stat().st_ino] == first
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["x"]


# Decodes slowly, and says in a file that grows by a byte for each image.
SLOW = """
import sys, time
from longtail import data
from longtail.data import cache
real = cache.read_image
def slow(path, size):
    with open(sys.argv[2], "ab") as file:
        file.write(b".")
    time.sleep(float(sys.argv[3]))
    return real(path, size)
cache.read_image = slow
loaded = data.load(sys.argv[1])
print(int(loaded.train.images.long().sum()))
"""


def start(folder, log, seconds):
    words = [sys.executable, "-c", SLOW, str(folder), str(log), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_killed_half_way(root, tmp_path):
    folder = make_folder(tmp_path / "photos", {"a": 40, "b": 20})
    log = tmp_path / "log"
    process = start(folder, log, 0.1)
    while not log.exists() or log.stat().st_size < 20:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    names = [path.name for path in root.iterdir() if path.is_dir() and path.name != "files"]
    assert len(names) == 1  # what was begun, under a name that nobody takes for a cache
    assert names[0].endswith(".part")
    loaded = data.load(str(folder))
    names = [path.name for path in root.iterdir() if path.is_dir() and path.name != "files"]
    assert names == [os.path.basename(loaded.origin.cache)]
    assert (loaded.train.images.flatten(1).amax(1) > 0).all()


def test_two_processes_at_once(root, tmp_path):
    folder = make_folder(tmp_path / "photos", {"a": 40, "b": 20})
    log = tmp_path / "log"
    processes = [start(folder, log, 0.02) for _ in range(2)]
    sums = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sums[0] == sums[1]
    assert int(sums[0]) == int(data.load(str(folder)).train.images.long().sum())
    assert log.stat().st_size == 60  # each image was decoded once


def test_progress_is_told(root, folder):
    told = []
    data.load(str(folder), tell=lambda *words: told.append(words))
    assert told == [("reading", 0, 12), ("reading", 12, 12), ("decoding", 0, 12), ("decoding", 12, 12)]
    told.clear()
    data.load(str(folder), tell=lambda *words: told.append(words))
    assert told[-1] == ("reading", 12, 12)


def test_few_results_wait_at_a_time():
    """However many files there are, decoded images do not pile up behind a slow disk."""
    alive = {"now": 0, "most": 0}

    class Result:
        def __init__(self):
            alive["now"] += 1
            alive["most"] = max(alive["most"], alive["now"])

        def __del__(self):
            alive["now"] -= 1

    for result in scan.in_parallel(lambda item: Result(), range(2000), "trying", silent):
        time.sleep(0.0001)
        del result
    assert alive["most"] <= 4 * min(32, len(os.sched_getaffinity(0))) + 2


def test_what_is_not_in_the_bytes_is_not_remembered(root, folder, monkeypatch):
    """A network drive that stumbles must not leave a cache that lacks images for good."""
    real = cache.read_image

    def stumbling(path, size):
        if path.name == "003.png":
            raise UnreadableError(path, "no access", "Input/output error")
        return real(path, size)

    monkeypatch.setattr(cache, "read_image", stumbling)
    with pytest.raises(LongtailError, match=r"003\.png: no access \(Input/output error\) now") as error:
        data.load(str(folder))
    assert "again" in error.value.fix
    assert not [path for path in root.iterdir() if path.is_dir() and path.name != "files"]
    monkeypatch.setattr(cache, "read_image", real)
    assert len(data.load(str(folder)).train) == 9


def test_a_permission_that_was_taken_away_is_seen(root, folder, monkeypatch):
    """It changes neither size nor date, by which files are known again."""
    old(folder)
    data.load(str(folder))
    real, taken = os.access, folder / "a" / "003.png"
    monkeypatch.setattr(os, "access", lambda path, mode: path != taken and real(path, mode))
    looked = []
    monkeypatch.setattr(scan, "_look", lambda path: looked.append(path) or scan.Seen(0, 0, "", kind="no access"))
    problems = data.load(str(folder)).origin.problems
    assert looked == [taken]
    assert [(problem.path, problem.kind) for problem in problems] == [("a/003.png", "no access")]
