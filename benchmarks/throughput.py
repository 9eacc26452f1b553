"""Images per second of the trainer, beside what it could gain and what it replaces, measured in one process.

Contenders, all ResNet-32 on CIFAR-100-LT (imbalance 100), batch 128, the same number of threads, repeats interleaved:

- ``plain loop``: how the papers' code trains. float32, contiguous tensors, PIL images; crop, flip, conversion and
  normalisation one image at a time; a DataLoader with 0 or 2 workers (the faster one is the reference); loss and
  top-1/top-5 read back every step. The reference (a).
- ``trainer``: `longtail.training.loop.Training` as `longtail train` runs it.
- ``bare step``: forward, backward and optimiser step on one fixed batch in the trainer's precision: the limit (b).

Run it on an idle machine: `make bench`. Without CIFAR files it takes random images of the same shape; speed does not
depend on what they show.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from contenders import BATCH, BareStep, PlainLoop, Trainer, load_images, new_network
from longtail.config import provenance
from longtail.training.runtime import Runtime, pick_device, settle, thread_count


@dataclass
class Result:
    """Images per second of one contender, one value per repeat."""

    name: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median over the repeats."""
        return statistics.median(self.values)


def measure(contenders: dict[str, Any], steps: int, repeats: int) -> dict[str, Result]:
    """Run all contenders in turn, every second round backwards, so that a drift of the machine meets all alike."""
    results = {name: Result(name) for name in contenders}
    for contender in contenders.values():
        contender.images_per_second(1)  # compilation, worker start and the allocator's growth are not timed
    for repeat in range(repeats):
        names = list(contenders) if repeat % 2 == 0 else list(reversed(contenders))
        for name in names:
            results[name].values.append(contenders[name].images_per_second(steps))
    return results


def summary(results: dict[str, Result]) -> list[dict[str, Any]]:
    """Return one row per contender, with its ratio to the faster plain loop and to the bare step of its kind."""
    plain = max(r.median for name, r in results.items() if name.startswith("plain loop"))
    rows = []
    for name, result in results.items():
        limit = results.get("bare step, compiled" if name.endswith("compiled") else "bare step")
        is_plain = name.startswith("plain loop")
        rows.append(
            {
                "contender": name,
                "images_per_second": round(result.median, 1),
                "lowest": round(min(result.values), 1),
                "highest": round(max(result.values), 1),
                "to_plain_loop": round(result.median / plain, 3),
                "to_bare_step": None if is_plain or limit is None else round(result.median / limit.median, 3),
            }
        )
    return rows


def machine(runtime: Runtime, pictures: str) -> dict[str, Any]:
    """Return what the numbers depend on."""
    facts = provenance()
    cpu = torch.cpu
    return {
        "processor": facts["processor"],
        "amx": bool(getattr(cpu, "_is_amx_tile_supported", lambda: False)()),
        "avx512_bf16": bool(getattr(cpu, "_is_avx512_bf16_supported", lambda: False)()),
        "device": torch.cuda.get_device_name() if runtime.device.startswith("cuda") else "cpu",
        "threads": runtime.threads,
        "precision": runtime.precision,
        "torch": facts["torch"],
        "longtail": facts["longtail"],
        "commit": facts["commit"],
        "images": pictures,
    }


def show(facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"\n{'':24}{'images/s':>10}{'lowest':>10}{'highest':>10}{'/ plain loop':>14}{'/ bare step':>13}")
    for row in rows:
        bare = "" if row["to_bare_step"] is None else f"{row['to_bare_step']:.2f}"
        print(
            f"{row['contender']:24}{row['images_per_second']:10.0f}{row['lowest']:10.0f}{row['highest']:10.0f}"
            f"{row['to_plain_loop']:14.2f}{bare:>13}"
        )


def contenders_for(images: Tensor, targets: Tensor, runtime: Runtime, batch: int, compiled: bool) -> dict[str, Any]:
    """Return all contenders by name."""
    device = torch.device(runtime.device)
    chosen: dict[str, Any] = {
        f"plain loop, {workers} workers": PlainLoop(images, targets, device, batch, workers) for workers in (0, 2)
    }
    for suffix, compile in (("", False), (", compiled", True)) if compiled else (("", False),):
        settled = replace(runtime, compile=compile)
        chosen[f"trainer{suffix}"] = Trainer(images, targets, settled, batch)
        chosen[f"bare step{suffix}"] = BareStep(settled, batch)
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=40, help="timed steps of a repeat (default 40)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default 5)")
    parser.add_argument("--threads", default="auto", help="CPU threads of all contenders (default auto: measured)")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32, of trainer and bare step")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="images per step (default 128)")
    parser.add_argument("--compile", action="store_true", help="also measure the compiled trainer and bare step")
    parser.add_argument("--data-root", help="folder that holds CIFAR-100 (default LONGTAIL_DATA, then .data)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args(arguments)

    device = pick_device(asked.device)
    probed = new_network(device).to(memory_format=torch.channels_last)
    runtime = settle(
        probed, (3, 32, 32), device=device, precision=asked.precision, threads=asked.threads, compile="off"
    )
    images, targets, pictures = load_images(asked.data_root)
    with thread_count(runtime.threads):
        contenders = contenders_for(images, targets, runtime, asked.batch_size, asked.compile)
        rows = summary(measure(contenders, asked.steps, asked.repeats))
    facts = machine(runtime, pictures) | {"steps": asked.steps, "repeats": asked.repeats, "batch": asked.batch_size}
    if asked.json:
        print(json.dumps({"machine": facts, "rows": rows}, indent=1))
    else:
        show(facts, rows)


if __name__ == "__main__":
    main()
