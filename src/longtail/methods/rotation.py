"""The rotation that RIDE's code and its successors add to CIFAR's augmentation."""

from __future__ import annotations

from longtail.augment import Compose, RandomRotation


def rotating(augment: Compose) -> Compose:
    """Return transforms that rotate by up to 15 degrees as well, before the normalisation at their end."""
    *before, normalize = augment.transforms
    return Compose((*before, RandomRotation(15), normalize))
