"""Long-tailed visual recognition: train, compare and reproduce methods for images with rare classes.

The top level loads nothing heavy: `longtail.train` and `longtail.load` import torch on first use, and the parts
are sub-packages of their own: `longtail.data`, `.losses`, `.sampling`, `.augment`, `.networks` and `.evaluation` for
any training loop, `.methods` and `.training` for new methods, `.benchmark` and `.report` for many runs, `.predict`,
`.export` and `.tracking` for single ones.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["LongTailClassifier", "LongtailError", "Run", "UsageError", "__version__", "load", "train"]

if TYPE_CHECKING:
    from longtail.errors import LongtailError, UsageError
    from longtail.estimator import LongTailClassifier
    from longtail.run import Run, load
    from longtail.session import train

_HOMES = {
    "LongTailClassifier": "longtail.estimator",
    "LongtailError": "longtail.errors",
    "UsageError": "longtail.errors",
    "Run": "longtail.run",
    "load": "longtail.run",
    "train": "longtail.session",
}
_SUBPACKAGES = (
    *("augment", "benchmark", "data", "evaluation", "export", "losses", "methods", "networks", "predict", "report"),
    *("sampling", "tracking", "training"),
)


def __getattr__(name: str) -> Any:
    """Import a public name or a sub-package when it is first asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"longtail.{name}")
    raise AttributeError(f"module 'longtail' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the lazy attributes too."""
    return sorted([*globals(), *_HOMES, *_SUBPACKAGES])
