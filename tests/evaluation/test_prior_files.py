"""Priors as people write them."""

from __future__ import annotations

import numpy as np
import pytest

from longtail.errors import LongtailError, UsageError
from longtail.evaluation import read_prior

NAMES = ("cat", "dog, small", "Käfer")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", 'class,probability\ncat,0.5\n"dog, small",0.25\nKäfer,0.25\n'),
        ("p.csv", '\ufeffKäfer,1\r\ncat,2\r\n\r\n"dog, small",1\r\n'),
        ("p.txt", 'cat,50\n"dog, small",25\nKäfer,25'),
        ("p.json", '{"Käfer": 0.25, "dog, small": 0.25, "cat": 0.5}'),
    ],
    ids=["csv", "counts, no header, BOM", "percent", "json"],
)
def test_priors_that_can_be_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    np.testing.assert_allclose(read_prior(tmp_path / name, NAMES), [0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "cat,1", "no number for 2 of 3 classes, such as 'dog, small'"),
        ("p.csv", "cat,1\ncat,1", "has class 'cat' twice"),
        ("p.json", '{"cat": 1, "cat": 2}', "has class 'cat' twice"),
        ("p.csv", "cta,1", "unknown class in .*did you mean cat"),
        ("p.csv", "cat,-1", "says '-1' for class 'cat'; it must be a number of at least 0"),
        ("p.csv", "cat,nan", "says 'nan'"),
        ("p.csv", "cat,many", "says 'many'"),
        ("p.json", '{"cat": true}', "says True"),
        ("p.json", '{"cat": [1]}', "says"),
        ("p.csv", "cat\tdog", "a line of 1 columns"),
        ("p.csv", "dog, small,1", "a line of 3 columns"),
        ("p.csv", '"dog, small",0\ncat,0\nKäfer,0', "0 for every class"),
        ("p.json", "[1, 2]", "holds no object"),
        ("p.json", "0.5", "holds no object"),
        ("p.json", "{", "is not JSON"),
        ("p.csv", "", "no number for 3 of 3"),
    ],
)
def test_priors_that_are_wrong(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=f"(?s){message}"):
        read_prior(tmp_path / name, NAMES)


def test_priors_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.csv").write_bytes(b"K\xe4fer,1")
    for name in ("nowhere.csv", "latin.csv", "."):
        with pytest.raises(LongtailError, match="cannot be read"):
            read_prior(tmp_path / name, NAMES)
