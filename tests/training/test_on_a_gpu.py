"""What a GPU would refuse or wait for, found without one: see `pretended_gpu`."""

from __future__ import annotations

import contextlib

import pytest
import torch

import longtail
from longtail import augment, methods
from longtail import data as datasets
from longtail.config import read_config
from longtail.errors import UsageError
from longtail.folder import RunFolder
from longtail.networks import build_network
from longtail.request import build_run_network, make_config
from longtail.training import runtime as runtimes
from longtail.training import world as worlds
from longtail.training.loader import StageLoader
from longtail.training.progress import Position, SilentReporter
from longtail.training.recipe import Stage
from longtail.training.runtime import Runtime, compile_in_place, pick_device, settle
from longtail.training.stop import StopRequest
from longtail.training.world import World
from longtail.underway import Session
from pretended_gpu import CPU, CUDA, PretendedGPU, WrongPlaceError

NAMES = [*methods.names(), "ce+drs+mixup", "bsce+cutmix", "ce+remix", "ldam+drw+cmo", "crt+h2t", "ride+h2t", "ride+ea"]
NAMES += ["ce+ssp", "ce+post-hoc-la", "ldam+drw+dev", "ce+mixup+cam"]


@pytest.fixture(scope="module")
def gpu() -> PretendedGPU:
    """One device for all tests: constants that are kept for a device stay there."""
    return PretendedGPU()


class EnoughError(Exception):
    """Enough steps were done."""


class Steps(SilentReporter):
    """Ends a stage after three steps, the last two of which are watched."""

    def __init__(self, gpu: PretendedGPU) -> None:
        self._gpu = gpu
        self._done = contextlib.ExitStack()

    def begin(self, number: int) -> None:
        self.number, self.left = number, 3

    def stage(self, name, number, stages, epochs):
        if number != self.number:
            raise EnoughError

    def step(self, epoch, step, steps, images):
        self.left -= 1
        if self.left == 2:
            self._done.enter_context(self._gpu.watched())
        if not self.left:
            self._done.close()
            raise EnoughError


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_keeps_its_tensors_together_and_no_step_waits(name, gpu, tmp_path, monkeypatch):
    data = datasets.load("digits", dev_per_class=5 if methods.needs_dev(name) else 0)
    asked = {"protocol": "quick", "seed": 0, "backbone": None, "precision": "fp32"}
    config = make_config(data, name, eval_every=None, options={"epochs": 3}, **asked)
    steps = Steps(gpu)
    session = Session(config, data, RunFolder(tmp_path), World(), steps)
    gpu.waits.clear()
    with gpu.pretended(monkeypatch):
        network = build_run_network(config, session.task, session.recipe).to("cuda")
        training = session.training = session.make_training(network, Runtime("cuda:0"))
        for number in range(len(session.recipe.stages)):
            training.position = Position(stage=number)
            steps.begin(number)
            with contextlib.suppress(EnoughError):
                training.run()
        assert {parameter.device for parameter in training.network.parameters()} == {CUDA}
        logits = session._test_logits()
        assert logits.device == CPU
        assert session.recipe.inference(logits).shape == (len(data.test), 10)
    assert gpu.waits == {}


def test_a_whole_run_and_a_resumed_one(gpu, digits, plain_run, tmp_path, monkeypatch):
    on_cpu = longtail.train(digits, "crt+mixup", out=tmp_path / "cpu", **plain_run)
    with gpu.pretended(monkeypatch):
        run = longtail.train(digits, "crt+mixup", out=tmp_path / "gpu", **{**plain_run, "device": "cuda"})
        (run.path / "metrics.json").unlink()
        again = longtail.train(digits, "crt+mixup", out=run.path, resume=True, **{**plain_run, "device": "auto"})
    assert read_config(run.path)[1]["made_by"]["gpu"] == "a pretended GPU"
    assert run.metrics["device"] == again.metrics["device"] == "cuda:0"
    assert again.metrics["per_class"] == run.metrics["per_class"] == on_cpu.metrics["per_class"]


TRANSFORMS = [
    augment.CentreCrop(16), augment.ColorJitter(0.4, 0.4, 0.4), augment.Cutout(8), augment.Grey(),
    augment.RandAugment(), augment.RandomCrop(4), augment.RandomCrop(4, "reflect"), augment.RandomFlip(),
    augment.RandomResizedCrop(16), augment.RandomRotation(15), augment.Sometimes(augment.Grey(), 0.5),
]  # fmt: skip


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_no_transform_waits(transform, gpu, monkeypatch):
    gpu.waits.clear()
    with gpu.pretended(monkeypatch):
        generator = torch.Generator(CUDA)
        images = torch.randint(256, (12, 3, 24, 24), dtype=torch.uint8, device=CUDA, generator=generator)
        transform(images, generator)  # what is kept for a device goes there once
        with gpu.watched():
            assert transform(images, generator).device == CUDA
    assert gpu.waits == {}


@pytest.mark.parametrize("where", [CPU, CUDA])
def test_images_that_do_not_fit_are_copied_batch_by_batch_without_waiting(where, gpu, digits, monkeypatch):
    gpu.waits.clear()
    with gpu.pretended(monkeypatch):
        transforms = augment.Compose((augment.RandomCrop(1), augment.Normalize((0.5,), (0.5,))))
        stage = Stage("train", None, 1, transforms, 32, views=(transforms,))
        images, targets = digits.train.images.to(where), digits.train.targets.to(CUDA)
        loader = StageLoader(images, targets, stage, number=0, num_classes=10, seed=0, world=World())
        plan = loader.plan(0)
        loader.batches(plan, 0, 0)  # mean and deviation go to the device once
        with gpu.watched():
            batches, _ = loader.batches(plan, 0, 1)
        assert all(part.device == CUDA for batch in batches for part in (batch.images, batch.targets, batch.indices))
    assert gpu.waits == {}


def test_the_pretended_device_notices_what_a_real_one_refuses(gpu, monkeypatch):
    gpu.waits.clear()
    with gpu.pretended(monkeypatch), gpu.watched():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        with pytest.raises(WrongPlaceError):
            here + there
        with pytest.raises(WrongPlaceError):
            there.numpy()
        with pytest.raises(WrongPlaceError):
            torch.rand(3, device="cuda", generator=torch.Generator())
        with pytest.raises(WrongPlaceError):
            torch.nn.Linear(3, 2)(there)
        assert (2 * there[torch.arange(2, device="cuda")] + torch.tensor(1.0)).device == CUDA
        assert gpu.waits == {}
        for waits in (lambda: there.sum().item(), lambda: there[there > 0], lambda: there.cpu(), lambda: here.to(CUDA)):
            before = gpu.waits.total()
            waits()
            assert gpu.waits.total() == before + 1


PLACES = [("auto", "1", "cuda:1"), ("cuda", "1", "cuda:1"), ("cuda", "0", "cuda:0"), ("cuda:0", "1", "cuda:0")]


@pytest.mark.parametrize(("name", "rank", "device"), [*PLACES, ("cpu", "1", "cpu")])
def test_each_process_has_a_gpu_of_its_own(name, rank, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(pick_device(name)) == device
    with pytest.raises(UsageError, match="cuda:2 was asked for, but torch sees 2"):
        pick_device("cuda:2")


def test_on_a_gpu_threads_are_taken_as_asked_and_short_runs_are_not_compiled(gpu, monkeypatch):
    seconds = iter([0.01, 0.01])
    monkeypatch.setattr(runtimes, "step_seconds", lambda *args: next(seconds))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    network = build_network("small", 10, 1)

    def settled(**asked) -> Runtime:
        return settle(network, (1, 8, 8), device=CUDA, **asked)

    assert settled(threads=3, compile="off") == Runtime("cuda:0", "fp32", 3)
    assert settled(precision="bf16", threads="2", compile="on") == Runtime("cuda:0", "bf16", 2, compile=True)
    assert not settled(total_images=331 * 100).compile
    assert settled(total_images=10_847 * 200).compile


def test_a_step_is_timed_on_its_device(gpu, monkeypatch):
    with gpu.pretended(monkeypatch):
        network = build_network("small", 10, 1).to(CUDA)
        assert runtimes.step_seconds(network, (1, 8, 8), Runtime("cuda:0")) > 0


def test_several_gpus_ask_each_other_in_host_memory_whether_to_stop(monkeypatch):
    backends = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for name, result in (("is_initialized", False), ("get_rank", 0), ("get_world_size", 2)):
        monkeypatch.setattr(worlds.dist, name, lambda result=result: result)
    monkeypatch.setattr(worlds.dist, "init_process_group", backends.append)
    monkeypatch.setattr(worlds.dist, "destroy_process_group", lambda: None)
    asked = []
    monkeypatch.setattr(worlds.dist, "all_reduce", lambda value: asked.append(value.device))
    with worlds.joined(CUDA) as world:
        stop = StopRequest(world)
        assert [stop() for _ in range(16)] == [False] * 16
    assert asked == [CPU]
    assert backends == ["cpu:gloo,cuda:nccl"]


def test_networks_of_one_shape_are_compiled_once_in_a_process(monkeypatch):
    from torch._dynamo.testing import CompileCounter

    counter, compile = CompileCounter(), torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **keywords: compile(self, backend=counter, **keywords))

    def train(backbone: str, images: int, seed: int) -> None:
        torch.manual_seed(seed)
        network = build_network(backbone, 10, 1)
        compile_in_place(network.backbone)
        network(torch.rand(images, 1, 8, 8)).sum().backward()

    torch._dynamo.reset()
    for seed in range(3):
        train("small", 4, seed)
    assert counter.frame_count == 1
    for images in range(5, 15):  # more shapes than torch compiles unless it is told to
        train("small", images, 0)
    assert counter.frame_count == 11
