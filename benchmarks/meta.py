"""Time of a meta re-weighting step beside a plain step of ResNet-32 in the same process.

Contenders, training and development batches of 100 (the published size), the same precision and threads, repeats
interleaved:

- ``plain``: forward, backward and optimiser step, the reference.
- ``da-meta``, ``l2rw``, ``meta-weight-net``: the library's steps, the meta-gradient by one forward pass.
- ``double backward``: the step of da-meta as the published code takes it, by differentiating through the look-ahead
  step, with a forward pass of its own for the real one.

``parts`` says where the time of da-meta's step goes, in plain steps. Counted in passes (a forward pass 1, a backward
pass 2) a plain step is 3 and da-meta's at least 10: forward 1, backward for the look-ahead 2, development batch 3,
derivative 2, backward 2. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from contenders import CLASSES, BareStep, time_steps
from longtail.data import long_tail_counts
from longtail.losses import CrossEntropyLoss, effective_number_weights
from longtail.methods.da_meta import LookAhead, WeighedObjective
from longtail.methods.l2rw import L2RWObjective
from longtail.methods.meta import WeightRecord, dev_gradient, forward, look_ahead, losses_of
from longtail.methods.meta_weight_net import MetaWeightNetObjective, WeightNet
from longtail.networks.tangent import derivative_along, trainable_parameters
from longtail.training.runtime import Runtime, pick_device, settle, thread_count
from longtail.types import Batch, Progress
from throughput import machine, measure

BATCH, LR, TAU = 100, 1e-3, 0.01
LIMIT = 2.6
"""How many plain steps a step of da-meta shall take."""
COUNTS = long_tail_counts(490, CLASSES, 100.0, "exp")


class MetaStep(BareStep):
    """An objective's forward pass, its backward pass and the optimiser step on images that are already there."""

    def __init__(self, runtime: Runtime, batch: int, objective: nn.Module) -> None:
        super().__init__(runtime, batch)
        self.objective = objective.to(self.device)
        dev = torch.randn_like(self.images)
        self.batches = tuple(
            Batch(images, torch.randint(CLASSES, (batch,), device=self.device), torch.arange(batch))
            for images in (self.images, dev)
        )

    def loss(self) -> Tensor:
        """Return what goes backward."""
        loss: Tensor = self.objective(self.network, self.batches, Progress(0, 1, lr=LR))
        return loss

    def step(self) -> None:
        """Train the batch once more."""
        with self.runtime.autocast():
            loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class DoubleBackwardStep(MetaStep):
    """The published code's step, without its rebuilding of the network and of the loader."""

    def loss(self) -> Tensor:
        """Return the weighted loss, with eps from a backward pass through the look-ahead step."""
        batch, dev = self.batches
        weights = self.objective.class_weights.float()[batch.targets]
        own = dict(self.network.named_parameters())
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        eps = torch.zeros_like(weights).requires_grad_()
        logits = functional_call(self.network, {**own, **buffers}, (batch.images,))
        total = ((weights + eps) * F.cross_entropy(logits.float(), batch.targets, reduction="none")).sum()
        gradients = torch.autograd.grad(total, list(own.values()), create_graph=True)
        ahead = {name: p - LR * g for (name, p), g in zip(own.items(), gradients, strict=True)}
        dev_loss = F.cross_entropy(functional_call(self.network, {**ahead, **buffers}, (dev.images,)), dev.targets)
        terms = -TAU * torch.autograd.grad(dev_loss, eps)[0]
        losses = F.cross_entropy(self.network(batch.images).float(), batch.targets, reduction="none")
        return ((weights + terms) * losses).mean()


def da_meta() -> WeighedObjective:
    """Return da-meta's objective in the published setting."""
    criterion = CrossEntropyLoss(COUNTS)
    weights = effective_number_weights(COUNTS)
    record = WeightRecord(CLASSES, 1)
    return WeighedObjective(criterion, criterion, weights, LookAhead(None, LR), tau=TAU, strength=None, record=record)


def objectives() -> dict[str, nn.Module]:
    """Return the objectives by method."""
    criterion = CrossEntropyLoss(COUNTS)
    net = WeightNet()
    net.draw()
    return {
        "da-meta": da_meta(),
        "l2rw": L2RWObjective(criterion, WeightRecord(CLASSES, 1)),
        "meta-weight-net": MetaWeightNetObjective(criterion, net, "code", WeightRecord(CLASSES, 1)),
    }


class Part:
    """A part of da-meta's step, alone."""

    def __init__(self, whole: MetaStep, run: Callable[[], Any]) -> None:
        self.whole = whole
        self.run = run

    def images_per_second(self, steps: int) -> float:
        """Time some runs after a short warm-up."""
        with self.whole.runtime.autocast():
            return time_steps(self.run, steps, self.whole.batch, self.whole.device)


def parts_of(whole: MetaStep) -> dict[str, Part]:
    """Return the parts of da-meta's step by name."""
    network, (batch, dev), criterion = whole.network, whole.batches, whole.objective.criterion
    own = trainable_parameters(network)
    with whole.runtime.autocast():
        passed = forward(network, batch, criterion)
        weights = torch.ones_like(passed.losses)
        ahead = look_ahead(own, passed.losses, weights, LR)
        direction = dev_gradient(network, ahead, dev, criterion)

    def losses(logits: Tensor) -> Tensor:
        return losses_of(criterion, logits, batch.targets)

    runs: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward(network, batch, criterion),
        "look-ahead": lambda: look_ahead(own, passed.losses, weights, LR),
        "development batch": lambda: dev_gradient(network, ahead, dev, criterion),
        "derivative": lambda: derivative_along(network, direction, batch.images, losses, passed.record),
        "derivative, no record": lambda: derivative_along(network, direction, batch.images, losses),
    }
    return {f"part: {name}": Part(whole, run) for name, run in runs.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a repeat (default 10)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default 5)")
    parser.add_argument("--threads", default="auto", help="CPU threads of all contenders (default auto: measured)")
    parser.add_argument("--precision", default="fp32", help="auto, bf16 or fp32 (the default, as the peers run)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="images per step, of either kind (default 100)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args(arguments)

    device = pick_device(asked.device)
    probed = BareStep(Runtime(str(device)), 2).network
    runtime = settle(
        probed, (3, 32, 32), device=device, precision=asked.precision, threads=asked.threads, compile="off"
    )
    with thread_count(runtime.threads):
        contenders: dict[str, Any] = {"plain": BareStep(runtime, asked.batch_size)}
        contenders |= {n: MetaStep(runtime, asked.batch_size, objective) for n, objective in objectives().items()}
        contenders["double backward"] = DoubleBackwardStep(runtime, asked.batch_size, da_meta())
        contenders |= parts_of(MetaStep(runtime, asked.batch_size, da_meta()))
        results = measure(contenders, asked.steps, asked.repeats)
    plain = results["plain"].median
    rows = [
        {"contender": n, "images_per_second": round(r.median, 1), "plain_steps": round(plain / r.median, 3)}
        for n, r in results.items()
    ]
    facts = machine(runtime, "random images") | {"batch": asked.batch_size}
    if asked.json:
        print(json.dumps({"machine": facts, "rows": rows, "limit": LIMIT}, indent=1))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"\n{'':30}{'images/s':>10}{'plain steps':>14}")
    for row in rows:
        print(f"{row['contender']:30}{row['images_per_second']:10.0f}{row['plain_steps']:14.2f}")
    cost = next(row["plain_steps"] for row in rows if row["contender"] == "da-meta")
    print(f"da-meta: {cost:.2f} plain steps (wanted: at most {LIMIT})")


if __name__ == "__main__":
    main()
