"""What the loss tests share: every module once, the golden cases, and value and gradient of a loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longtail.losses import (
    BalancedSoftmaxLoss,
    CBLoss,
    CDTLoss,
    ClassCountLoss,
    CrossEntropyLoss,
    FocalLoss,
    GCLLoss,
    LabelAwareSmoothingLoss,
    LabelSmoothingLoss,
    LDAMLoss,
    LogitAdjustmentLoss,
    SoftmaxEqualizationLoss,
    VSLoss,
)

COUNTS = [500, 120, 30, 8, 1]

# Every module and form, built from class counts. Draws are seeded, so that building twice gives the same loss twice.
MODULES: dict[str, Callable[..., ClassCountLoss]] = {
    "cross_entropy": CrossEntropyLoss,
    "focal_softmax": lambda c, **kw: FocalLoss(c, gamma=1.5, **kw),
    "focal_softmax_gamma_half": lambda c, **kw: FocalLoss(c, gamma=0.5, **kw),
    "focal_sigmoid": lambda c, **kw: FocalLoss(c, gamma=2.0, form="sigmoid", **kw),
    "focal_sigmoid_gamma_half": lambda c, **kw: FocalLoss(c, gamma=0.5, form="sigmoid", **kw),
    "cb_softmax": CBLoss,
    "cb_sigmoid": lambda c, **kw: CBLoss(c, form="sigmoid", **kw),
    "cb_focal": lambda c, **kw: CBLoss(c, form="focal", gamma=0.5, **kw),
    "ldam": LDAMLoss,
    "gcl": lambda c, **kw: GCLLoss(c, m=0.1, **kw).eval(),  # in training mode it draws
    "balanced_softmax": BalancedSoftmaxLoss,
    "logit_adjustment": lambda c, **kw: LogitAdjustmentLoss(c, tau=1.3, **kw),
    "seql": lambda c, **kw: SoftmaxEqualizationLoss(c, threshold=0.1, generator=torch.Generator().manual_seed(3), **kw),
    "label_smoothing": LabelSmoothingLoss,
    "las_all": LabelAwareSmoothingLoss,
    "las_others": lambda c, **kw: LabelAwareSmoothingLoss(c, head=0.4, tail=0.1, off_target="others", **kw),
    "cdt": CDTLoss,
    "vs": VSLoss,
}

# Those whose constructor takes class weights (CBLoss makes its own).
WEIGHTED_MODULES = [name for name in MODULES if not name.startswith("cb_")]


def golden(name: str) -> list[dict[str, Any]]:
    """Return the cases of a golden file."""
    path = Path(__file__).parents[1] / "golden" / f"{name}.json"
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return cases


def golden_array(value: Any) -> Tensor:
    """Return a stored array, or the one that a stored numpy expression makes, as float64."""
    if isinstance(value, dict):
        array = eval(value["recipe"], {"numpy": np})
        assert list(array.shape) == value["shape"]
        assert abs(array.sum() - value["sum"]) < 1e-9
    else:
        array = np.array(value)
    return torch.tensor(array, dtype=torch.float64)


def batch(seed: int = 0, size: int = 12, classes: int = len(COUNTS)) -> tuple[Tensor, Tensor]:
    """Return random float64 logits and targets that hold every class."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, classes, dtype=torch.float64, generator=generator)
    return logits, torch.arange(size) % classes


def value_and_grad(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return a loss and its gradient with respect to the logits."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf)
    (grad,) = torch.autograd.grad(value, leaf)
    return value.detach(), grad
