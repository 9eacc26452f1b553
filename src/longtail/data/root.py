"""Where data sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(root: str | os.PathLike[str] | None = None) -> tuple[Path, str]:
    """Find the folder of the data sets: the argument, else ``LONGTAIL_DATA``, else ``./.data``.

    Returns:
        The folder, which need not exist, and in words where it was named.
    """
    if root is not None:
        return Path(root).expanduser(), "given as root"
    if named := os.environ.get("LONGTAIL_DATA"):
        return Path(named).expanduser(), "named by LONGTAIL_DATA"
    return Path(".data"), "the default; neither root nor LONGTAIL_DATA is set"
