"""Draw docs/digits-demo.png from the runs of `make demo`: `python docs/digits_demo.py RUNS PICTURE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

from longtail.report import per_class_gain, shot_group_bars

BEST, BASELINE = "bsce", "ce"


def main(runs: str, picture: str) -> None:
    """Draw all methods by shot group, and the gain of one of them class by class."""
    rows = [json.loads(path.read_text()) for path in sorted(Path(runs).rglob("metrics.json"))]
    if not rows:
        raise SystemExit(f"{runs} holds no finished runs; run `make demo` first")
    rows.sort(key=lambda row: (row["method"] != BASELINE, row["top1"]))
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    shot_group_bars(rows, left)
    by_method = {name: [row for row in rows if row["method"] == name] for name in (BEST, BASELINE)}
    per_class_gain(by_method[BEST], by_method[BASELINE], right)
    figure.savefig(picture, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
