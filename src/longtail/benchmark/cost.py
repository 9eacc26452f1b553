"""What a method's training costs beside plain cross-entropy: measured in one process, or what its card says.

    python -m longtail.benchmark.cost results/benchmarks/cost-MACHINE.json METHOD ...

measures a few steps of every stage of each method and, right before, of cross-entropy, on CIFAR-100-LT at imbalance 100
under the quick protocol. Ratios within one process tell something even on a machine that does other work too, which
the training times of runs made on different days do not.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longtail import methods
from longtail.benchmark.table import BASELINE
from longtail.config import provenance
from longtail.errors import LongtailError, UsageError

PROTOCOL, DATASET, IMBALANCE = "quick", "cifar100", 100.0
_TOLD = re.compile(r"(?:about )?([\d.]+)x(?: to ([\d.]+)x)?(?: plus (?:([\d.]+) %|a few per cent))?(?=[ ,;:(]|$)")
_A_FEW_PER_CENT = 5.0


def from_card(name: str) -> str:
    """Return the cost of ``METHOD+MODIFIER+...`` that the cards of its parts tell, without their explanations."""
    method, *mods = methods.parse(name)
    extra = [f"+{mod}: {cost}" for mod in mods if (cost := _short(methods.card(mod).cost)) != "1x"]
    return ", ".join([_short(methods.card(method).cost), *extra])


def _short(text: str) -> str:
    for sign in ",;:":
        text = text.partition(sign)[0]
    return text.strip()


def factor(name: str) -> float:
    """Return how many times as long as cross-entropy ``METHOD+MODIFIER+...`` trains, as the cards of its parts tell.

    Of a range it is the upper end.

    Raises:
        ValueError: A card tells its cost in other words.
    """
    return math.prod(_factor(methods.card(part).cost) for part in methods.parse(name))


def _factor(cost: str) -> float:
    told = _TOLD.match(cost)
    if told is None:
        raise ValueError(f"a card's cost is {cost!r}; it must begin as 1x, about 2x, 3x to 4x or 1x plus 3 % do")
    low, high, more = told.groups()
    per_cent = float(more) if more else _A_FEW_PER_CENT if "plus" in told[0] else 0.0
    return float(high or low) * (1 + per_cent / 100)


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
    from longtail.benchmark.estimate import measure
    from longtail.benchmark.grid import Source, plan
    from longtail.benchmark.job import Machine, settled_for
    from longtail.benchmark.standin import stand_in

    ratio: dict[str, float] = {}
    runtime = None
    for name in names:
        dev = 10 if _needs_dev(name) else 0
        source = Source(DATASET, IMBALANCE, dev_per_class=dev)
        data = stand_in(source)
        base, *others = plan(data, [name], [0], root, protocol=PROTOCOL, source=source)
        cell = others[0] if others else base
        runtime = runtime or settled_for(base, data, Machine(compile="off"))
        plain = measure(base, runtime)
        ratio[name] = round(sum(measure(cell, runtime).stages) / sum(plain.stages), 2)
    return ratio, asdict(runtime) if runtime else {}


def _needs_dev(name: str) -> bool:
    from longtail.benchmark.published import load

    return any(row.dev_per_class for row in load() if row.method == name)


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
