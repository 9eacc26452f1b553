"""FSA: feature space augmentation (Chu et al., ECCV 2020)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.losses import CrossEntropyLoss
from longtail.losses.base import upcast
from longtail.methods.card import Card
from longtail.methods.decoupling import features_first
from longtail.networks import build_network
from longtail.networks.backbone import Backbone
from longtail.sampling.subset import SubsetSampling
from longtail.training.budget import Context
from longtail.training.recipe import Look, Recipe, Schedule
from longtail.types import Batch, Progress

CARD = Card(
    title="Feature space augmentation",
    paper="Chu et al., ECCV 2020",
    arxiv="2008.03673",
    idea="Positions of the last feature map where an image of a rare class shows it are put together with background "
    "positions of images of frequent classes that look like it; a second stage learns the classifier on these too.",
    use="Where rare classes lack backgrounds rather than looks, and maps are large enough to have both.",
    cost="1.1x; 2x under quick",
)

HEAD_SHARE = 0.9
_AT_ONCE = 8192  # images whose softmax is looked at together


def head_and_tail(class_counts: tuple[int, ...], share: float = HEAD_SHARE) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide the classes that have images into head and tail.

    Args:
        class_counts: Training images per class.
        share: The largest classes are head as long as together they have at most this share of the images; the
            largest always is, the smallest never.

    Returns:
        Class indices of the head and of the tail.

    Raises:
        UsageError: Fewer than two classes have images.
    """
    order = sorted((c for c, n in enumerate(class_counts) if n), key=lambda c: -class_counts[c])
    if len(order) < 2:
        raise UsageError("fsa needs two classes with images, one for the head and one for the tail")
    head, seen, total = [order[0]], class_counts[order[0]], sum(class_counts)
    for c in order[1:-1]:
        seen += class_counts[c]
        if seen > share * total:
            break
        head.append(c)
    return tuple(head), tuple(order[len(head) :])


def activation_maps(maps: Tensor, weights: Tensor) -> Tensor:
    """Return class-activation maps max(0, w_c . F), shifted and scaled to 0..1 image by image.

    Args:
        maps: F, the last feature maps, (B, d, h, w).
        weights: w_c, the classifier's weights of each image's class, (B, d).

    Returns:
        (B, h, w); NaN where the map is the same everywhere, which is neither above nor below a threshold.
    """
    cam = torch.einsum("bdhw,bd->bhw", maps, weights).clamp(min=0)
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    return (cam - low) / (high - low)


def fuse(tail: Tensor, specific: Tensor, head: Tensor, generic: Tensor, taken: Tensor) -> Tensor:
    """Pool fused maps: at a position the tail's class-specific vector where ``taken``, else the head's generic one.

    Args:
        tail: Feature maps of tail images, (B, d, h, w).
        specific: Where they show their class, (B, h, w), bool; elsewhere they give 0.
        head: Feature maps of head images, one for each, (B, d, h, w).
        generic: Where those show no class, (B, h, w), bool; elsewhere they give 0.
        taken: Which of the two a position is from, (B, h, w), bool.

    Returns:
        Features, (B, d).
    """
    own, other = (taken & specific).to(tail.dtype), (~taken & generic).to(head.dtype)
    total = torch.einsum("bhw,bdhw->bd", own, tail) + torch.einsum("bhw,bdhw->bd", other, head)
    return total / (tail.shape[2] * tail.shape[3])


class FeatureSpaceAugmentation(nn.Module):
    """Half the loss of tail images, as they are and fused, half that of head images (Chu et al., ECCV 2020).

    A fused feature has the class of its tail image. Its head images are of the batch, of the ``confusing`` head classes
    for which the network mistakes that class most, by mean softmax over the training set; where the batch has too few
    of them, of the next.

    Args:
        criterion: The loss of logits (B, C) and targets (B,), a mean.
        head: Classes of the head.
        num_classes: C.
        fused: Fused features for each tail image, N_a.
        confusing: How many classes are confusing ones, N_f.
        specific: A position shows the class where its activation is above this, t_s.
        generic: And shows none where it is below this, t_g.

    Source: the paper's abstract, and for all that it leaves open an unofficial code,
        github.com/SSRSGJYD/Feature-Space-Augmentation-for-Long-Tailed-Data, phase_iii_online_train_or_test.py.
    """

    order: Tensor
    """How a head class, by its place among them, ranks in being mistaken for a class, (C, H)."""
    place: Tensor
    is_head: Tensor

    def __init__(
        self,
        criterion: nn.Module,
        head: tuple[int, ...],
        num_classes: int,
        *,
        fused: int = 3,
        confusing: int = 3,
        specific: float = 0.8,
        generic: float = 0.2,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.fused = fused
        self.confusing = confusing
        self.specific = specific
        self.generic = generic
        is_head = torch.zeros(num_classes, dtype=torch.bool)
        is_head[list(head)] = True
        self.register_buffer("is_head", is_head, persistent=False)
        self.register_buffer("place", is_head.cumsum(0) - 1, persistent=False)
        self.register_buffer("order", torch.zeros(num_classes, len(head), dtype=torch.int16))

    def measure(self, look: Look, targets: Tensor) -> None:
        """Rank the head classes, for each class, by how much the network takes its images for them."""
        total = torch.zeros(self.order.shape, dtype=torch.float64, device=self.order.device)
        for scores, classes in zip(torch.split(look(), _AT_ONCE), torch.split(targets, _AT_ONCE), strict=True):
            total.index_add_(0, classes, scores.double().softmax(-1)[:, self.is_head])
        means = total / torch.bincount(targets, minlength=len(total)).clamp(min=1).unsqueeze(1)
        heads = self.is_head.nonzero().flatten()
        means[heads, self.place[heads]] = -1  # no class is mistaken for itself
        self.order.copy_(means.argsort(dim=1, descending=True, stable=True).argsort(1))

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the scalar loss of a batch of tail images and one of head images; ``progress`` is not used."""
        tail, head = batches
        real, fused, frequent = self.features(network, tail, head)
        classify: nn.Module = network.head  # type: ignore[assignment]
        repeated = tail.targets.repeat_interleave(fused.shape[1])
        rare: Tensor = self.criterion(
            classify(torch.cat([real, fused.flatten(0, 1)])), torch.cat([tail.targets, repeated])
        )
        often: Tensor = self.criterion(classify(frequent), head.targets)
        return (rare + often) / 2

    @torch.no_grad()
    def features(self, network: nn.Module, tail: Batch, head: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of the tail images, (B, d), fused ones, (B, N, d), and those of the head images, (B', d)."""
        backbone: Backbone = network.backbone  # type: ignore[assignment]
        head_weight: Tensor = network.head.weight  # type: ignore[union-attr,assignment]
        maps = backbone.feature_map(torch.cat([tail.images, head.images]))
        with torch.autocast(maps.device.type, enabled=False):
            maps, count = upcast(maps), len(tail)
            cam = activation_maps(maps, upcast(head_weight)[torch.cat([tail.targets, head.targets])])
            specific, generic = cam[:count] > self.specific, cam < self.generic
            fused = []
            for chosen in (count + self.partners(tail.targets, head.targets)).T:
                gamma = torch.rand(count, 1, 1, device=cam.device)
                taken = torch.rand_like(cam[:count]) > gamma
                fused.append(fuse(maps[:count], specific, maps[chosen], generic[chosen], taken))
            pooled = maps.mean((2, 3))
        return pooled[:count], torch.stack(fused, 1), pooled[count:]

    def partners(self, tail: Tensor, head: Tensor) -> Tensor:
        """Choose head images for tail images: positions in the head's batch, (B, N), for classes (B,) and (B',)."""
        order = self.order[tail.unsqueeze(1), self.place[head].unsqueeze(0)].clamp(min=self.confusing - 1)
        drawn = order + torch.rand(order.shape, device=order.device)
        return drawn.topk(min(self.fused, len(head)), largest=False).indices

    def extra_repr(self) -> str:
        """Describe the numbers."""
        return (
            f"head={int(self.is_head.sum())}, fused={self.fused}, confusing={self.confusing}, "
            f"specific={self.specific}, generic={self.generic}"
        )


def fsa(
    context: Context,
    *,
    fused: int = 3,
    confusing: int = 3,
    specific: float = 0.8,
    generic: float = 0.2,
    head_share: float = HEAD_SHARE,
    stage2_epochs: int = 40,
    stage2_lr: float = 0.0005,
) -> Recipe:
    """Stage 1: cross-entropy. Stage 2: the classifier, on tail images, features fused from them, and head images.

    With m = max(0, w_c . F) scaled to 0..1 on the last feature map F, a fused map has at a position, by a coin whose
    odds are drawn once for each pair, either F of the tail image where its m > t_s, or F of a head image of a confusing
    class where its m < t_g, and 0 elsewhere.

    Args:
        context: Class counts and budget.
        fused: Fused features for each tail image, N_a.
        confusing: Head classes that count as confusing for a tail class, N_f.
        specific: t_s.
        generic: t_g.
        head_share: Share of the images that the head classes have together, h_r.
        stage2_epochs: Epochs of stage 2, each with as many tail and as many head images as the training set has.
        stage2_lr: Its learning rate, which stays as it is.

    Raises:
        UsageError: A number is out of range, or fewer than two classes have images.
    """
    if not (fused >= 1 and confusing >= 1 and stage2_epochs >= 1):
        raise UsageError(
            f"fsa: fused is {fused}, confusing {confusing} and stage2_epochs {stage2_epochs}; each must be at least 1"
        )
    if not (0 <= specific <= 1 and 0 <= generic <= 1 and 0 <= head_share <= 1):
        raise UsageError(
            f"fsa: specific is {specific}, generic {generic} and head_share {head_share}; each must be in 0..1"
        )
    head, tail = head_and_tail(context.class_counts, head_share)
    objective = FeatureSpaceAugmentation(
        CrossEntropyLoss(context.class_counts),
        head,
        context.num_classes,
        fused=fused,
        confusing=confusing,
        specific=specific,
        generic=generic,
    )
    images = sum(context.class_counts)
    stage = context.stage(objective, "classifier")
    stage = replace(
        stage,
        epochs=stage2_epochs,
        optimizer=replace(stage.optimizer, lr=stage2_lr, nesterov=False),
        schedule=Schedule(stage2_epochs, "step", warmup=0, milestones=(), decay=()),
        sampling=(SubsetSampling(tail, images), SubsetSampling(head, images)),
        trainable="head",
        batch_norm="eval",
    )
    return replace(features_first(context, stage), network=partial(build_network, mapped=True))
