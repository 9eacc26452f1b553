"""The pickle reader admits arrays and nothing else."""

from __future__ import annotations

import codecs
import contextlib
import datetime
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.data.pickles import read_pickle
from longtail.errors import LongtailError


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def read(tmp_path, content, protocol=2):
    path = tmp_path / "batch"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return read_pickle(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_lists_and_both_kinds_of_keys(tmp_path, protocol):
    rows = np.arange(24, dtype=np.uint8).reshape(2, 12)
    content = read(tmp_path, {b"data": rows, "labels": [3, 4], b"name": b"\xff\x00"}, protocol)
    assert content["data"].tolist() == rows.tolist()
    assert content["data"].dtype == np.uint8
    assert content["labels"] == [3, 4]
    assert content["name"] == b"\xff\x00"


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_names_of_the_array_constructor(tmp_path, module):
    written = pickle.dumps({"data": np.arange(3, dtype=np.uint8)}, protocol=2)
    names = (b"numpy.core.multiarray", b"numpy._core.multiarray")
    written = written.replace(names[1], names[0]).replace(names[0], module.encode())
    assert read(tmp_path, written)["data"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda marker: Call(os.system, f"touch {marker}"), r"(posix|nt)\.system"),
        (lambda marker: Call(eval, f"open({str(marker)!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
        (lambda marker: Call(open, str(marker), "w"), r"_?io\.open"),
        (lambda marker: Call(np.save, str(marker), 0), r"numpy\.save"),
        (lambda marker: Call(getattr, 1, "real"), r"(builtins|__builtin__)\.getattr"),
        (lambda marker: datetime.date(2000, 1, 1), r"datetime\.date"),
        (lambda marker: Call(codecs.encode, "gur", "rot13"), "_codecs.encode to 'rot13'"),
        (lambda marker: np.array([{}], dtype=object), r"numpy\.dtype\('O8?'\)"),
    ],
)
def test_other_globals_are_refused_and_not_called(tmp_path, call, name):
    marker = tmp_path / "marker"
    with pytest.raises(LongtailError, match=rf"batch: the pickle asks for {name}") as error:
        read(tmp_path, {"data": call(marker)})
    assert "hostile" in error.value.fix
    assert not marker.exists()


def test_not_a_dictionary(tmp_path):
    with pytest.raises(LongtailError, match="batch: holds a list, not a dictionary"):
        read(tmp_path, [1, 2])


@given(damage=st.binary(max_size=60), at=st.integers(0, 200))
def test_damaged_pickles_are_errors_of_ours(tmp_path_factory, damage, at):
    written = pickle.dumps({"data": np.arange(40, dtype=np.uint8), "labels": [1, 2]}, protocol=2)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(written[:at] + damage + written[at + len(damage) :])
    with contextlib.suppress(LongtailError):  # whatever else comes out fails the test
        assert isinstance(read_pickle(path), dict)
