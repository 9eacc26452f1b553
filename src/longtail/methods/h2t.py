"""H2T: feature fusion from head to tail (Li et al., AAAI 2024) as a modifier of classifier stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from longtail.errors import UsageError
from longtail.methods.card import Card
from longtail.methods.ce import ce
from longtail.methods.mixup import mixup
from longtail.sampling import InstanceSampling
from longtail.training.budget import Context
from longtail.training.recipe import Recipe
from longtail.training.sharing import stage_difference
from longtail.types import Batch, Progress

CARD = Card(
    title="Head-to-tail feature fusion",
    paper="Li et al., AAAI 2024",
    arxiv="2306.06963",
    idea="While the classifier is trained on class-balanced images, overwrite a random part of the feature channels "
    "with those of an image drawn as the data come, mostly of a head class, and keep the balanced image's label.",
    use="In the classifier stage of crt, mislas, gcl, lws, ride and reslt. Trades head for tail accuracy by p; "
    "gains less on a base that is balanced well already.",
    cost="1x plus 3 %; nothing at test time",
)

PRESETS = {"warm": True}
PUBLISHED = {"decay": (0.1, 0.01)}


def channel_mask(
    channels: int, p: float, leading: Sequence[int] = (), device: torch.device | str | None = None
) -> Tensor:
    """Choose ``int(p * channels)`` channels at random, from torch's global generator.

    Args:
        channels: Number of channels d.
        p: Share to choose, in [0, 1]; the product is rounded down.
        leading: Shape of independent draws, ``(E,)`` for E experts.
        device: Where the mask is made.

    Returns:
        Mask, (*leading, d), bool, true for the chosen channels.
    """
    order = torch.rand(*leading, channels, device=device).argsort(-1)
    # `order` is a permutation, so that exactly int(p * d) of its entries are below int(p * d).
    return order < int(p * channels)


def fuse(features: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """Overwrite the masked channels of features with those of others, image by image.

    Pooling is linear and goes channel by channel, so that fusing pooled features is fusing feature maps and pooling.

    Args:
        features: (..., B, d), such as (B, d) or (E, B, d) for E experts.
        others: Of the same shape.
        mask: One mask for the whole batch, and one for each expert: (..., d), such as (d,) or (E, d).
    """
    return torch.where(mask.unsqueeze(-2), others, features)


class FusedObjective(nn.Module):
    """An objective on fused features: the first stream's, labelled, with channels of the second stream's.

    Each stream passes through the frozen backbone on its own, so that in training mode each is normalised by its own
    batch statistics. One mask is drawn for a batch, and one for each expert where features are (E, B, d).

    Args:
        objective: Called with the head in the place of the network and fused features in the place of images.
        p: Share of the channels that is overwritten.
    """

    def __init__(self, objective: nn.Module, p: float) -> None:
        super().__init__()
        self.objective = objective
        self.p = p

    def forward(self, network: nn.Module, batches: tuple[Batch, ...], progress: Progress) -> Tensor:
        """Return the objective's loss of the fused batch, with the first batch's labels."""
        labelled, fusing = batches
        with torch.no_grad():
            features: Tensor = network.features(labelled.images)  # type: ignore[operator]
            others: Tensor = network.features(fusing.images)  # type: ignore[operator]
            mask = channel_mask(features.shape[-1], self.p, features.shape[:-2], features.device)
            fused = fuse(features, others, mask)
        loss: Tensor = self.objective(network.head, (replace(labelled, images=fused),), progress)
        return loss

    def extra_repr(self) -> str:
        """Describe the ratio."""
        return f"p={self.p}"


def _with_classifier_stage(recipe: Recipe) -> Recipe:
    """Return the recipe with a classifier stage at its end, or say why there is nothing to fuse in."""
    stage = recipe.stages[-1]
    if stage.objective is None or stage.trainable != "head":
        if recipe.classifier is None:
            raise UsageError(
                "+h2t fuses features while a classifier is trained on a frozen backbone, which this method does not do",
                fix="use crt+h2t, mislas+h2t, gcl+h2t, ride+h2t or reslt+h2t",
            )
        return recipe.with_stages(*recipe.stages, recipe.classifier)
    if len(stage.sampling) > 1:
        raise UsageError("+h2t adds a second index stream, but the classifier stage has branches of its own")
    return recipe


def h2t(recipe: Recipe, context: Context, *, p: float = 0.3) -> Recipe:
    """Train the classifier on f_balanced with int(p d) channels of f_instance in it, and the label of f_balanced.

    The channels are drawn anew for each batch, and for each expert. With p = 0 the classifier stage is that of the
    base; p = 1 leaves no trace of the labelled image. Under this modifier crt goes on with the trained classifier
    (``warm``), and a first stage of plain cross-entropy gets mixup, as in the paper's code. A one-stage method that has
    a classifier stage to offer (``Recipe.classifier``), such as ride, gets it at its end.

    Args:
        recipe: A recipe whose last stage trains a classifier on a frozen backbone, or that offers such a stage.
        context: Class counts and budget.
        p: Share of the channels that is overwritten; 0.3 is best in the paper's sweep, the released configuration has
            0.25.

    Raises:
        UsageError: p is not in [0, 1], or the recipe has no such stage.
    """
    if not 0 <= p <= 1:
        raise UsageError(f"p is {p}; it must lie between 0 and 1 (the share of channels that is overwritten)")
    recipe = _with_classifier_stage(recipe)
    if len(recipe.stages) > 1 and not stage_difference(recipe.stages[0], ce(context).stages[0]):
        recipe = mixup(recipe, context)
    if p == 0:
        return recipe
    stage = recipe.stages[-1]
    assert stage.objective is not None
    fused = replace(stage, objective=FusedObjective(stage.objective, p), sampling=(*stage.sampling, InstanceSampling()))
    return recipe.with_stages(*recipe.stages[:-1], fused)
