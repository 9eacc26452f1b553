"""Time of a training step with three experts, one by one and all at once, beside a plain ResNet-32 in the same process.

Contenders, batch 128, the same precision and threads, repeats interleaved:

- ``plain``: ResNet-32, the reference.
- ``ride``: three experts of 24 and 48 channels on shared first layers, one batch for all.
- ``independent``: three whole networks, a batch for each.

Each in both ways of `longtail.networks.ExpertBackbone`. ``BATCHED_ON`` in `longtail.networks.experts` names the faster
way for each device; where this disagrees, change it there. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
import torch.nn.functional as F

from contenders import BATCH, CLASSES, BareStep, new_network, time_steps
from longtail.networks import CosineHead, build_expert_network
from longtail.training.runtime import Runtime, pick_device, settle, thread_count
from throughput import machine, measure

EXPERTS = 3
KINDS: dict[str, dict[str, Any]] = {
    "ride": {"shared_stem": True, "reduced": True, "head": CosineHead, "scale": 30.0},
    "independent": {},
}
LIMITS = {"ride": 1.7, "independent": 3.1}
"""How many plain steps a step may take, in the faster way."""


class ExpertStep:
    """Forward, backward and optimiser step of three experts on images that are already there."""

    def __init__(self, runtime: Runtime, batch: int, kind: str, *, batched: bool) -> None:
        self.runtime = runtime
        self.device = torch.device(runtime.device)
        self.batch = batch
        torch.manual_seed(0)
        network = build_expert_network("resnet32", CLASSES, experts=EXPERTS, batched=batched, **KINDS[kind])
        self.network = network.to(self.device).to(memory_format=torch.channels_last).train()
        if runtime.compile:
            self.network.backbone.compile(dynamic=False)
        own = (EXPERTS,) if kind == "independent" else ()
        self.images = torch.randn(*own, batch, 3, 32, 32, device=self.device)
        if not own:
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.targets = torch.randint(CLASSES, (EXPERTS * batch,), device=self.device)
        fused = self.device.type == "cuda" or None
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=fused
        )

    def step(self) -> None:
        """Train once."""
        with self.runtime.autocast():
            logits = self.network(self.images)
            loss = EXPERTS * F.cross_entropy(logits.flatten(0, 1), self.targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def images_per_second(self, steps: int) -> float:
        """Time some steps after a short warm-up; the batches of all experts count as one."""
        return time_steps(self.step, steps, self.batch, self.device)


def rows_of(speeds: dict[str, float]) -> list[dict[str, Any]]:
    """Return one row per contender: images per second, and its step in plain steps."""
    return [
        {"contender": name, "images_per_second": round(speed, 1), "plain_steps": round(speeds["plain"] / speed, 3)}
        for name, speed in speeds.items()
    ]


def faster_ways(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, for each kind of experts, the faster way, its cost in plain steps and the limit of it."""
    best = {}
    for kind, limit in LIMITS.items():
        row = min((r for r in rows if r["contender"].startswith(kind)), key=lambda r: r["plain_steps"])
        best[kind] = {"way": row["contender"].partition(", ")[2], "plain_steps": row["plain_steps"], "limit": limit}
    return best


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a repeat (default 20)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default 5)")
    parser.add_argument("--threads", default="auto", help="CPU threads of all contenders (default auto: measured)")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="images per step (default 128)")
    parser.add_argument("--compile", action="store_true", help="compile the backbones, as runs on a GPU do")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args(arguments)

    probed = new_network(pick_device(asked.device)).to(memory_format=torch.channels_last)
    runtime = settle(
        probed,
        (3, 32, 32),
        device=pick_device(asked.device),
        precision=asked.precision,
        threads=asked.threads,
        compile="on" if asked.compile else "off",
    )
    with thread_count(runtime.threads):
        contenders: dict[str, Any] = {"plain": BareStep(runtime, asked.batch_size)}
        for kind in KINDS:
            for way, batched in (("one by one", False), ("all at once", True)):
                contenders[f"{kind}, {way}"] = ExpertStep(runtime, asked.batch_size, kind, batched=batched)
        results = measure(contenders, asked.steps, asked.repeats)
    rows = rows_of({name: result.median for name, result in results.items()})
    facts = machine(runtime, "random images") | {"compile": runtime.compile, "batch": asked.batch_size}
    best = faster_ways(rows)
    if asked.json:
        print(json.dumps({"machine": facts, "rows": rows, "faster": best}, indent=1))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"\n{'':28}{'images/s':>10}{'plain steps':>14}")
    for row in rows:
        print(f"{row['contender']:28}{row['images_per_second']:10.0f}{row['plain_steps']:14.2f}")
    for kind, row in best.items():
        print(f"{kind}: {row['way']} is faster, {row['plain_steps']:.2f} plain steps (at most {row['limit']})")


if __name__ == "__main__":
    main()
