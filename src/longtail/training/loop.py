"""The training loop: stages, epochs, steps; stops and resumes at any step with the same result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from longtail.augment import Compose
from longtail.errors import LongtailError
from longtail.networks import Network
from longtail.training.inference import HeadView, network_logits, stored_features
from longtail.training.loader import StageLoader, step_seed
from longtail.training.progress import Position, Reporter
from longtail.training.recipe import Choosing, Measured, Prepared, Recipe, Shape, Stage, enter_structure
from longtail.training.runtime import Runtime, compile_in_place
from longtail.training.step import step_module
from longtail.training.world import World, gather_over_processes
from longtail.types import Progress


class InterruptedRunError(LongtailError):
    """The run was asked to stop; its state is on disk."""


class DivergedError(LongtailError):
    """The loss is not finite; the last good state is on disk."""


class Training:
    """A recipe being trained on a network.

    Args:
        recipe: What to train.
        network: On the device of the runtime, channels_last.
        images: Training images, uint8 (N, C, H, W), on the device.
        targets: Classes, (N,), on the device.
        plain: Test-time transforms, for features.
        shape: What the network is built for.
        seed: Training seed.
        runtime: Settled device, precision, threads and compilation.
        world: The processes of the run.
        save: Called with the whole state after epochs and on a stop; decides itself how often it writes.
        after_epoch: Called with (record, last) after every epoch; may add to the record (test accuracy) and keeps it.
        should_stop: Asked after every step.
        reporter: Hears the progress.
        dev: Images and classes of the development set, on the device, for stages that draw from it.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        images: Tensor,
        targets: Tensor,
        plain: Compose,
        *,
        shape: Shape,
        seed: int,
        runtime: Runtime,
        world: World,
        save: Callable[[Training, bool], None],
        after_epoch: Callable[[dict[str, Any], bool], None],
        should_stop: Callable[[], bool],
        reporter: Reporter,
        dev: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.runtime = runtime
        self.world = world
        self.position = Position()
        self._images = images
        self._targets = targets
        self._plain = plain
        self._dev = dev
        self._shape = shape
        self._seed = seed
        self._save = save
        self._after_epoch = after_epoch
        self._should_stop = should_stop
        self._reporter = reporter
        self._stored: Tensor | None = None
        self._objective: nn.Module | None = None
        self._optimizer: torch.optim.SGD | None = None

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on from here: tensors and plain values only."""
        return {
            "position": asdict(self.position),
            "network": self.network.state_dict(),
            "objective": self._objective.state_dict() if self._objective is not None else {},
            "optimizer": self._optimizer.state_dict() if self._optimizer is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: rebuild the networks and heads of the stages entered so far, then load."""
        self.position = Position(**state["position"])
        entered = self.position.stage + self.position.entered
        before = self.network
        for stage in self.recipe.stages[:entered]:
            before = self._enter_structure(stage)
        self.network.load_state_dict(state["network"])
        last = self.recipe.stages[min(self.position.stage, len(self.recipe.stages) - 1)]
        previous = self.recipe.stages[entered - 1] if entered else last
        if state["optimizer"] is None or previous.objective is None:
            return
        self._prepare(previous, before)
        assert self._objective is not None
        assert self._optimizer is not None
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])

    def run(self) -> None:
        """Train from the current position to the end.

        Raises:
            InterruptedRunError: ``should_stop`` said so; the state was saved.
            DivergedError: An epoch's loss is not finite.
        """
        stages = self.recipe.stages
        while self.position.stage < len(stages):
            stage = stages[self.position.stage]
            self._reporter.stage(stage.name, self.position.stage, len(stages), stage.epochs)
            # A state holds the main process's batch-norm statistics; what a stage computes with them must be the same
            # in all processes, and after a resume.
            self.world.broadcast(self.network.buffers())
            if not self.position.entered:
                self._enter(stage)
            self._train(stage)
            p = self.position
            self.position = Position(stage=p.stage + 1, seconds=p.seconds, images=p.images)
            self._save(self, True)

    def _enter(self, stage: Stage) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(self._seed, self.position.stage, 0, 1))
            before = self._enter_structure(stage)
        if stage.fit is not None:
            features = self._features()
            stage.fit(self.network.head, features if features.ndim == 2 else features.movedim(1, 0), self._targets)
        if stage.objective is not None:
            with torch.random.fork_rng(devices=[]):  # what an objective draws for itself follows from the run's seed
                torch.manual_seed(step_seed(self._seed, self.position.stage, 0, 2))
                self._prepare(stage, before)
        if isinstance(stage.objective, Measured):
            stage.objective.measure(self._look, self._targets)
        self.position.entered = True

    def _features(self) -> Tensor:
        """Return the features of the training images, computed once for all stages in which they are the same."""
        if self._stored is None:
            share = self.world.share(self._images)
            self._stored = gather_over_processes(stored_features(self.network, share, self._plain, self.runtime))
        return self._stored

    def _look(self, module: nn.Module | None = None) -> Tensor:
        """Return what a module, or the network, says of the training images, without augmentation."""
        asked, share = self.network if module is None else module, self.world.share(self._images)
        logits = network_logits(asked, share, self._plain, self.runtime)
        return gather_over_processes(logits.movedim(-2, 0)).movedim(0, -2)

    def _enter_structure(self, stage: Stage) -> Network:
        """Put the stage's network and head in place; return the network that was there, often the same."""
        before, device = self.network, self.runtime.device
        network = enter_structure(before, stage, self._shape).to(device)
        if network is not before:
            self._stored = None
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return before

    def _prepare(self, stage: Stage, before: Network) -> None:
        """Put the stage's objective, trainable parameters and optimiser in place."""
        assert stage.objective is not None
        if isinstance(stage.objective, Prepared):
            stage.objective.prepare(before, self.network)
        self._objective = stage.objective.to(self.runtime.device)
        self.network.backbone.requires_grad_(stage.trainable == "all")
        if stage.continues and self._optimizer is not None:
            return
        self._optimizer = torch.optim.SGD(
            stage.optimizer.parameter_groups(self.network, self._objective),
            lr=stage.optimizer.lr,
            momentum=stage.optimizer.momentum,
            weight_decay=stage.optimizer.weight_decay,
            nesterov=stage.optimizer.nesterov,
            fused=torch.device(self.runtime.device).type == "cuda" or None,
        )

    def _train(self, stage: Stage) -> None:
        if stage.objective is None or stage.epochs == 0:
            return
        images, network = self._images, self.network
        view: nn.Module = network
        if stage.cached_features:
            images = self._features()
            view = HeadView(network)
        else:
            self._stored = None  # the backbone moves, or at least its batch norm
            if self.runtime.compile:
                compile_in_place(network.backbone)
        loader = StageLoader(
            images,
            self._targets,
            stage,
            number=self.position.stage,
            num_classes=self._shape.num_classes,
            seed=self._seed,
            world=self.world,
            dev=self._dev,
        )
        assert self._objective is not None
        step = step_module(self._objective, view, self.world)
        while self.position.epoch < stage.epochs:
            self._epoch(stage, loader, step)

    def _epoch(self, stage: Stage, loader: StageLoader, step: nn.Module) -> None:
        p = self.position
        assert self._optimizer is not None
        lr = stage.optimizer.lr * stage.schedule.factor(stage.first_epoch + p.epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.network.train()
        self.network.backbone.train(stage.batch_norm == "train")
        plan = loader.plan(p.epoch)
        loss_sum = torch.tensor(p.loss_sum, dtype=torch.float64, device=self.runtime.device)
        began = time.perf_counter() - p.epoch_seconds
        while p.step < plan.steps:
            size = min(stage.batch_size, plan.images - p.step * stage.batch_size)
            loss_sum += self._one_step(stage, loader, step, plan) * size
            p.step += 1
            self._reporter.step(p.epoch, p.step, plan.steps, size)
            if self._should_stop():
                # The mean, since on resume each process goes on from it.
                p.loss_sum = float(self.world.sum(loss_sum)) / self.world.size
                p.epoch_seconds = time.perf_counter() - began
                self._stop()
        loss = float(self.world.sum(loss_sum)) / self.world.size / plan.images
        seconds = time.perf_counter() - began
        self._end_epoch(stage, plan.images, loss, lr, seconds)

    def _one_step(self, stage: Stage, loader: StageLoader, step: nn.Module, plan: Any) -> Tensor:
        """Queue one optimiser step; return its loss, still on the device."""
        p = self.position
        assert self._optimizer is not None
        # What an objective draws is another stream than what its images are augmented by.
        torch.manual_seed(step_seed(self._seed, p.stage, 1 + p.epoch, p.step, 1, self.world.rank))
        batches, weight = loader.batches(plan, p.epoch, p.step)
        lr = stage.optimizer.lr * stage.schedule.factor(stage.first_epoch + p.epoch)
        progress = Progress(stage.first_epoch + p.epoch, stage.schedule.epochs, p.step, plan.steps, lr)
        whole = len(batches[0]) * self.world.size == stage.batch_size
        # A short last batch runs eagerly: one more compiled shape would cost more than it gains.
        eager = torch.compiler.set_stance("force_eager") if self.runtime.compile and not whole else nullcontext()
        with eager, self.runtime.autocast():
            loss: Tensor = step(batches, progress) * weight
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _end_epoch(self, stage: Stage, images: int, loss: float, lr: float, seconds: float) -> None:
        p = self.position
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} in epoch {p.epoch + 1} of stage {stage.name!r} at learning rate {lr:g}",
                fix="the last good state is kept; try a smaller --lr, more --warmup or --precision fp32",
            )
        p.epoch, p.step, p.loss_sum, p.epoch_seconds = p.epoch + 1, 0, 0.0, 0.0
        p.seconds += seconds
        p.images += images
        record = {"stage": stage.name, "epoch": stage.first_epoch + p.epoch, "lr": lr, "loss": loss, "seconds": seconds}
        record["images_per_second"] = images / seconds
        if isinstance(stage.objective, Choosing) and (chosen := stage.objective.chosen()):
            record["chosen"] = chosen
        is_last = p.epoch == stage.epochs and p.stage == len(self.recipe.stages) - 1
        self._after_epoch(record, is_last)
        self._reporter.epoch(record)
        self._save(self, False)

    def _stop(self) -> None:
        if not math.isfinite(self.position.loss_sum):
            raise DivergedError(
                "the run was stopped after its loss had become infinite", fix="the last good state is kept"
            )
        self._save(self, True)
        raise InterruptedRunError(f"stopped in stage {self.position.stage + 1}, epoch {self.position.epoch + 1}")
