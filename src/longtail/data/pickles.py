"""Read CIFAR's pickles without trusting them: a pickle can call anything, these may only build numeric arrays."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from longtail.errors import LongtailError


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a dictionary of lists, numbers, byte strings and numeric arrays; text keys whoever wrote it.

    Args:
        path: A file of the official CIFAR archives, or one written the same way by a newer Python and numpy.

    Raises:
        LongtailError: The file is missing, cut short, not a pickle of a dictionary, or names a global that a CIFAR file
            does not need (the global is named, and was not called).
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except _RefusedError as error:
        raise LongtailError(
            f"{path}: the pickle asks for {error}, which no CIFAR file needs; refused",
            fix="the file may be hostile: get the data set from its official page again",
        ) from None
    except OSError as error:
        raise LongtailError(f"{path}: cannot be read ({error.strerror})", fix=_AGAIN) from error
    except Exception as error:  # broad: a damaged pickle fails in any way that its bytes happen to spell
        raise LongtailError(
            f"{path}: not a readable pickle, cut short or damaged ({_first_line(error)})", fix=_AGAIN
        ) from error
    if not isinstance(content, dict):
        raise LongtailError(f"{path}: holds a {type(content).__name__}, not a dictionary as CIFAR files do", fix=_AGAIN)
    return {_text(key): value for key, value in content.items()}


_AGAIN = "unpack the archive again, or load the data set with download=True into an empty folder"


class _RefusedError(Exception):
    """A global that is not needed."""


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _numeric_dtype(code: bytes | str, *_: object) -> np.dtype[Any]:
    """`numpy.dtype` for numbers only; its old flags are dropped because newer numpy warns about them."""
    dtype = np.dtype(_text(code))
    if dtype.kind not in "biuf":
        raise _RefusedError(f"numpy.dtype({_text(code)!r})")
    return dtype


def _latin1_bytes(text: str, encoding: bytes | str) -> bytes:
    """`_codecs.encode` as pickles of protocol 2 use it to spell bytes."""
    if _text(encoding) not in ("latin1", "latin-1"):
        raise _RefusedError(f"_codecs.encode to {_text(encoding)!r}")
    return text.encode("latin-1")


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # under the name that the installed numpy gives it
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _numeric_dtype,
    ("_codecs", "encode"): _latin1_bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None
