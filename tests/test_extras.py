"""The library beside the newest torch and the optional extras; `.ci/run` runs these in an environment of their own."""

import subprocess
import sys

import pytest
import torch

import longtail
from longtail.losses import BalancedSoftmaxLoss
from longtail.networks import build_network

pytestmark = pytest.mark.extras


def test_the_library_itself_imports_neither_torchvision_nor_timm():
    code = (
        "import sys, longtail; longtail.train; longtail.load; "
        "sys.exit(', '.join({'torchvision', 'timm'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("default")  # what timm and torchvision warn of is not ours
def test_a_loss_trains_a_timm_model_on_torchvision_transforms():
    timm = pytest.importorskip("timm")
    transforms = pytest.importorskip("torchvision.transforms.v2")
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=10)
    images = transforms.RandomHorizontalFlip()(torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8))
    loss = BalancedSoftmaxLoss([100, 60, 40, 30, 20, 10, 8, 5, 3, 1])(model(images / 255), torch.tensor([0, 3, 9, 9]))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_training_on_digits_works(tmp_path):
    run = longtail.train("digits", "bsce", epochs=1, threads=1, compile="off", device="cpu", out=tmp_path / "run")
    assert 0 < run.metrics["top1"] <= 100
    assert longtail.load(tmp_path / "run").predict(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape == (2,)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_cifar_step_of_resnet32_is_finite(precision):
    torch.manual_seed(0)
    network = build_network("resnet32", 100).to(memory_format=torch.channels_last).train()
    counts = [max(1, 500 // (c + 1)) for c in range(100)]
    images = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = network(images)
    loss = BalancedSoftmaxLoss(counts)(logits, torch.arange(8))
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9).step()
    assert logits.dtype == torch.float32
    assert loss.isfinite()
    assert all(p.isfinite().all() for p in network.parameters())
