"""What a method's training costs beside plain cross-entropy, measured in one process.

    python -m longtail.benchmark.cost results/benchmarks/cost-MACHINE.json METHOD ...

measures a few steps of every stage of each method and, right before, of cross-entropy, on CIFAR-100-LT at imbalance 100
under the quick protocol. Ratios within one process tell something even on a machine that does other work too, which
the training times of runs made on different days do not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longtail import methods
from longtail.benchmark.estimate import measure
from longtail.benchmark.grid import Source, plan
from longtail.benchmark.job import Machine, settled_for
from longtail.benchmark.standin import stand_in
from longtail.benchmark.table import BASELINE
from longtail.config import provenance
from longtail.errors import LongtailError, UsageError

PROTOCOL, DATASET, IMBALANCE = "quick", "cifar100", 100.0


def ratios(names: Sequence[str], root: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure the training cost of methods as multiples of cross-entropy's.

    Args:
        names: Methods with modifiers.
        root: A folder that need not exist; nothing is written there.

    Returns:
        The ratios by name, and the runtime that they hold for.

    Raises:
        UsageError: A method is unknown.
    """
    ratio: dict[str, float] = {}
    runtime = None
    for name in names:
        dev = 10 if methods.needs_dev(name) else 0
        source = Source(DATASET, IMBALANCE, dev_per_class=dev)
        data = stand_in(source)
        base, *others = plan(data, [name], [0], root, protocol=PROTOCOL, source=source)
        cell = others[0] if others else base
        runtime = runtime or settled_for(base, data, Machine(compile="off"))
        plain = measure(base, runtime)
        ratio[name] = round(sum(measure(cell, runtime).stages) / sum(plain.stages), 2)
    return ratio, asdict(runtime) if runtime else {}


def read(results_dir: str | Path) -> dict[str, float]:
    """Return what was measured, by method; empty where nothing was.

    Raises:
        LongtailError: A file is not such a measurement.
    """
    found: dict[str, float] = {}
    for path in sorted(Path(results_dir).glob("benchmarks/cost-*.json")):
        try:
            content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found |= {name: float(value) for name, value in content["cost"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LongtailError(f"{path} is not a measurement of cost: {type(error).__name__} {error}") from error
    return found


def main(words: Sequence[str]) -> int:
    """Run the module as a script; see its docstring."""
    try:
        if len(words) < 2:
            raise UsageError("the file and at least one method are needed", fix="FILE METHOD...")
        names = [methods.canonical(word) for word in words[1:] if word != BASELINE]
        ratio, runtime = ratios(names, Path(words[0]).with_suffix(".none"))
        about = {"dataset": DATASET, "imbalance": IMBALANCE, "protocol": PROTOCOL, "runtime": runtime}
        content = {**about, "made_by": provenance(), "cost": {BASELINE: 1.0, **ratio}}
        Path(words[0]).parent.mkdir(parents=True, exist_ok=True)
        Path(words[0]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except LongtailError as error:
        print(f"longtail: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
