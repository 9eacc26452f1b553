"""LDAM: label-distribution-aware margins (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

from functools import partial

from longtail.losses import LDAMLoss
from longtail.methods.card import Card
from longtail.methods.inference import ScaleLogits
from longtail.methods.supervised import SupervisedObjective
from longtail.networks import CosineHead, build_network
from longtail.training.budget import Context
from longtail.training.recipe import Recipe

CARD = Card(
    title="Label-distribution-aware margin loss",
    paper="Cao et al., NeurIPS 2019",
    arxiv="1906.07413",
    idea="A larger margin for rarer classes, Delta_c ~ n_c^(-1/4), on the cosine between feature and class weight.",
    use="Best with deferred re-weighting (ldam+drw); alone it gains little. Harms a balanced set.",
)

cosine_network = partial(build_network, head=CosineHead)


def ldam(context: Context, *, max_m: float = 0.5, s: float = 30.0) -> Recipe:
    """L = CE(s (z - Delta_y onehot(y)), y), z the cosines, Delta_c = max_m (n_min / n_c)^(1/4).

    The scale does not change the predicted class; the inference rule applies it so that confidences are those of the
    trained softmax (the official code leaves test logits unscaled).

    Args:
        context: Class counts and budget.
        max_m: Margin of the rarest class; 0.5 in the official code, 0.3 is advised for iNaturalist.
        s: Scale of the cosines.
    """
    loss = LDAMLoss(context.class_counts, max_m=max_m, s=s)
    return Recipe(stages=(context.stage(SupervisedObjective(loss)),), network=cosine_network, inference=ScaleLogits(s))
