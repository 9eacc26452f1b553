"""A run under way: from its request to the files of a finished run, for one folder and data set."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from longtail import methods
from longtail.borrowing import borrowed_state, teacher_of
from longtail.config import RunConfig, git_commit, provenance, read_config
from longtail.data import LongTailData
from longtail.errors import LongtailError
from longtail.evaluation import answering_expert, experts_used
from longtail.evaluation import metrics as evaluate
from longtail.folder import RunFolder
from longtail.networks import Network
from longtail.request import Task, build_recipe, build_run_network, network_shape
from longtail.tracking import Tracking
from longtail.training.inference import head_logits, network_logits, stored_features
from longtail.training.loader import check_batch_size, placed
from longtail.training.loop import Training
from longtail.training.pretrained import from_weights
from longtail.training.progress import Reporter
from longtail.training.runtime import Runtime, settle, thread_count
from longtail.training.stop import StopRequest
from longtail.training.world import World

git_commit()  # now, since a grid may import the code today and begin a run tomorrow


class Session:
    """A run under way: what the training loop asks of the outside, answered for one folder and data set."""

    def __init__(
        self, config: RunConfig, data: LongTailData, folder: RunFolder, world: World, reporter: Reporter
    ) -> None:
        self.config = config
        self.fingerprint = data.fingerprint
        self.data = data.with_dev_in_train() if methods.trains_on_dev(config.method) else data
        self.task = Task.of(self.data, config)
        self.recipe = build_recipe(config, self.task, teacher_of(config, self.task))
        self.folder = folder
        self.world = world
        self.reporter = reporter
        self.history: list[dict[str, Any]] = []
        self.best: float | None = None
        self.stage1: str | None = None
        self.training: Training
        self.tracking: Tracking | None = None
        self._test_features: tuple[int, Tensor] | None = None
        self._last_logits: Tensor | None = None
        self.stop = StopRequest(world)

    def run(
        self,
        device: torch.device,
        *,
        threads: str | int,
        compile: str,
        stage1: str | Path | None,
        settled: Runtime | None,
        track: str | None,
    ) -> None:
        """Train from the start or from the saved state, evaluate and write everything."""
        for stage in self.recipe.stages:
            check_batch_size(stage, len(self.data.train), self.world)
        state = self.folder.load_state()
        config = self.config
        self.recipe = from_weights(self.recipe, config.backbone, config.weights, fresh=state is None)
        network = build_run_network(config, self.task, self.recipe)
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if state is None:
            runtime = settled or self._settle(network, device, threads, compile)
        else:  # as it was begun, on the device that this process was given
            runtime = replace(Runtime(**state["runtime"]), device=str(device))
            if settled is None:
                runtime = runtime.changed(threads, compile)
        with thread_count(runtime.threads), self.stop.on_signals():
            self.training = self.make_training(network, runtime)
            if state is not None:
                self._restore(state)
            elif stage1 is not None:
                self._take_stage1(Path(stage1))
            if not self.world.is_main:
                self.training.run()
                return
            self.folder.begin()
            with Tracking(track, self.folder.path, config, self.history) as self.tracking:
                if state is None:
                    self._write_request(runtime)
                else:
                    self._write_resumption(runtime)
                self.training.run()
                self._finish()

    def _settle(self, network: Network, device: torch.device, threads: str | int, compile: str) -> Runtime:
        runtime = settle(
            network,
            self.task.input_shape,
            device=device,
            precision=self.config.precision,
            threads=threads,
            compile=compile,
            # Features that are computed once are no reason to compile.
            total_images=0 if self.config.freeze_backbone else len(self.data.train) * self.config.budget["epochs"],
        )
        if self.world.size > 1:  # every process must use what the main one measured
            choice = [runtime]
            dist.broadcast_object_list(choice, src=0)
            runtime = replace(choice[0], device=str(device))
        return runtime

    def make_training(self, network: Network, runtime: Runtime) -> Training:
        """Return the training of a network of this run, at its beginning."""
        held_out = self.data.dev
        dev = None if held_out is None else (held_out.images.to(runtime.device), held_out.targets.to(runtime.device))
        return Training(
            self.recipe,
            network,
            placed(self.data.train.images, torch.device(runtime.device)),
            self.data.train.targets.to(runtime.device),
            self.task.plain_transforms(),
            shape=network_shape(self.config, self.task),
            seed=self.config.seed,
            runtime=runtime,
            world=self.world,
            save=self._save,
            after_epoch=self._after_epoch,
            should_stop=self.stop,
            reporter=self.reporter,
            dev=dev,
        )

    # What the loop calls ----------------------------------------------------------------------------------------

    def _after_epoch(self, record: dict[str, Any], is_last: bool) -> None:
        # Only the main process keeps what it sees.
        if self.world.is_main and (is_last or (len(self.history) + 1) % self.config.eval_every == 0):
            raw = self._test_logits() if is_last else self._look()
            self._last_logits = raw if is_last else None
            logits, targets = self.recipe.inference(raw), self.data.test.targets
            record["test_top1"] = 100.0 * int((logits.argmax(1) == targets).sum()) / len(targets)
            self.best = max(self.best or 0.0, record["test_top1"])
        self.history.append(record)
        if self.world.is_main:
            self.folder.append_history(record)
        if self.tracking is not None:
            self.tracking.epoch(record, step=len(self.history))

    def _save(self, training: Training, force: bool) -> None:
        if not self.world.is_main or not (force or self.folder.state_is_due):
            return
        outside = {"stage1": self.stage1, "history": self.history, "best": self.best}
        self.folder.save_state({**training.state(), "runtime": training.runtime.asdict(), **outside})
        position = training.position
        if 0 < position.stage < len(self.recipe.stages) and not position.entered:
            self.folder.keep_state(position.stage)

    # Beginning and end ------------------------------------------------------------------------------------------

    def _write_request(self, runtime: Runtime) -> None:
        self.folder.write_request(
            self.config,
            data={**asdict(self.task), "fingerprint": self.fingerprint},
            runtime=runtime.asdict(),
            processes=self.world.size,
            stage1=self.stage1,
            made_by=provenance(),
        )
        self.folder.rewrite_history(self.history)

    def _write_resumption(self, runtime: Runtime) -> None:
        """Write into the configuration what the run goes on with, and who takes it on where that is another."""
        config, more = read_config(self.folder.path)
        makers, now = [more.get("made_by"), *more.get("resumed_by", [])], provenance()
        if makers[-1] != now:
            makers.append(now)
        content = {**more, "runtime": runtime.asdict(), "resumed_by": makers[1:]}
        if content != more:
            self.folder.write_request(config, **content)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.training.restore(state)
        except (RuntimeError, ValueError) as error:  # load_state_dict: another network, or other parameters
            raise LongtailError(
                f"{self.folder.path / 'state.pt'} does not fit the configuration beside it: "
                f"{str(error).splitlines()[0]}",
                fix="start again in a new folder",
            ) from error
        self.history, self.best, self.stage1 = list(state["history"]), state["best"], state["stage1"]
        if self.world.is_main:
            self.folder.rewrite_history(self.history)

    def _take_stage1(self, base: Path) -> None:
        """Take over from another run the first stages that both share, as far as it kept them."""
        state = borrowed_state(self.config, self.task, self.fingerprint, self.recipe, base)
        self.training.restore(state)
        self.history, self.best = state["history"], state["best"]
        self.stage1 = str(base)

    def _look(self) -> Tensor:
        """Return `_test_logits` in the middle of the training: where features stay the same, they are computed once."""
        training, number = self.training, self.training.position.stage
        if not self.recipe.stages[number].cached_features:
            return self._test_logits()
        if self._test_features is None or self._test_features[0] != number:
            plain, images = self.task.plain_transforms(), self.data.test.images
            self._test_features = number, stored_features(training.network, images, plain, training.runtime)
        return head_logits(training.network, self._test_features[1], training.runtime).cpu()

    def _test_logits(self) -> Tensor:
        """Return what the network says of the test set, (N, C) or (E, N, C)."""
        plain, runtime = self.task.plain_transforms(), self.training.runtime
        return network_logits(self.training.network, self.data.test.images, plain, runtime).cpu()

    def _finish(self) -> None:
        raw = self._test_logits() if self._last_logits is None else self._last_logits
        logits, targets = self.recipe.inference(raw), self.data.test.targets
        position, runtime = self.training.position, self.training.runtime
        scores = evaluate(logits.numpy(), targets.numpy(), list(self.task.class_counts))
        chosen = {line["stage"]: line["chosen"] for line in self.history if "chosen" in line}
        metrics = {
            "method": self.config.method,
            "dataset": self.config.dataset,
            "imbalance": self.config.imbalance,
            "protocol": self.config.protocol,
            "seed": self.config.seed,
            "epochs": self.config.budget["epochs"],
            **scores,
            **({"experts_used": float(experts_used(raw.numpy()).mean())} if _is_of_experts(raw, logits) else {}),
            **({"chosen": chosen} if chosen else {}),
            "class_counts": list(self.task.class_counts),
            "selection": "last-epoch",
            "best_test_epoch_top1": max(self.best or 0.0, scores["top1"]),
            "train_seconds": position.seconds,
            "images_per_second": position.images / max(position.seconds, 1e-9),
            "device": runtime.device,
            "precision": runtime.precision,
            "threads": runtime.threads,
            "compile": runtime.compile,
            "stage1": self.stage1,
            "teacher": self.config.teacher,
        }
        arrays = {"logits": logits, "targets": targets, **({"expert_logits": raw} if raw.ndim == 3 else {})}
        self.folder.write_results(self.training.network.state_dict(), arrays, metrics)
        if self.tracking is not None:
            self.tracking.final(metrics, step=len(self.history))


def _is_of_experts(raw: Tensor, logits: Tensor) -> bool:
    """Return whether what a network says, (N, C) or (E, N, C), is of experts who answer together."""
    return raw.ndim == 3 and answering_expert(raw.numpy(), logits.numpy()) is None
