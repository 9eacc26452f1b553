"""Instance discrimination with a queue of keys (He et al., MoCo, CVPR 2020): which key is of the same image."""

from __future__ import annotations

import torch
from torch import Tensor

from longtail.losses.base import upcast


def instance_discrimination_loss(
    queries: Tensor, keys: Tensor, queue: Tensor, temperature: float = 0.2, left_out: Tensor | None = None
) -> Tensor:
    """Loss of each image: ``-log( e^(q.k / T) / (e^(q.k / T) + sum_n e^(q.n / T)) )``, n over the queue.

    Computed through a log-sum-exp, so no exponential overflows. No gradient is asked of keys and queue.

    Args:
        queries: Embeddings of the images, (B, d), of length 1.
        keys: Embeddings of another view of the same images, (B, d), of length 1.
        queue: Keys of other images, (K, d), of length 1.
        temperature: T > 0; 0.2 in MoCo v2 and SSD, 0.07 in MoCo.
        left_out: Keys of the queue that do not count for an image, (B, K), bool: in SSD's code those of its own class.
            Where nothing is left, the loss is 0.

    Returns:
        Losses, (B,), float32 or float64.

    Raises:
        ValueError: Shapes do not fit together.

    Source: github.com/facebookresearch/moco; ``left_out``: github.com/MCG-NJU/SSD-LT.
    """
    if queries.ndim != 2 or keys.shape != queries.shape or queue.ndim != 2 or queue.shape[1] != queries.shape[1]:
        raise ValueError(
            "instance_discrimination_loss: queries and keys must be (B, d) and the queue (K, d), got "
            f"{tuple(queries.shape)}, {tuple(keys.shape)} and {tuple(queue.shape)}"
        )
    queries, keys, queue = upcast(queries), upcast(keys), upcast(queue)
    with torch.autocast(queries.device.type, enabled=False):
        positive = (queries * keys).sum(1, keepdim=True) / temperature
        negative = queries @ queue.T / temperature
    if left_out is not None:
        negative = negative.masked_fill(left_out, -torch.inf)
    losses: Tensor = torch.cat([positive, negative], 1).logsumexp(1) - positive.squeeze(1)
    return losses
