"""Settings of the whole suite: one torch thread, and a small task that every training test shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from longtail import Run, data, session, train
from pictures import make_folder

torch.set_num_threads(1)

# How long an example takes says something about the machine and nothing about the code.
settings.register_profile("longtail", deadline=None)
settings.load_profile("longtail")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded images out of the user's cache folder."""
    os.environ["LONGTAIL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def digits() -> data.LongTailData:
    return data.load("digits")


@pytest.fixture
def plain_run() -> dict[str, object]:
    """Options of a short run whose result depends on nothing but its arguments."""
    return {"protocol": "quick", "epochs": 3, "precision": "fp32", "threads": 1, "compile": "off", "device": "cpu"}


@pytest.fixture
def train_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Exception]], None]:
    """Make training raise an error for some methods, by name, and train the others."""

    def make(errors: Mapping[str, Exception]) -> None:
        trained = session.train

        def train_or_fail(data, method, **keywords):
            if method in errors:
                raise errors[method]
            return trained(data, method, **keywords)

        monkeypatch.setattr(session, "train", train_or_fail)

    return make


@pytest.fixture(scope="session")
def photo_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on a folder of images, of which the network sees the middle; not to be written to."""
    root = tmp_path_factory.mktemp("photo-run")
    folder = make_folder(root / "photos", {"red": 24, "green": 12, "blue": 8})
    return train(
        str(folder), "bsce", image_size=20, crop_size=16, backbone="small", epochs=2, out=root / "run",
        precision="fp32", threads=1, compile="off", device="cpu",
    )  # fmt: skip
