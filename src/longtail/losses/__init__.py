"""Losses for long-tailed training: pure functions, and modules that need only class counts.

Every module is called as ``loss(logits, targets, sample_weights=None)``; every function returns the loss of each
sample, (B,), for `reduce_losses` or for you to weight. All work in any training loop::

    loss = BalancedSoftmaxLoss(class_counts)
    loss(model(images), targets).backward()
"""

from longtail.losses.balanced_softmax import BalancedSoftmaxLoss, balanced_softmax_loss, log_class_counts
from longtail.losses.base import ClassCountLoss
from longtail.losses.cdt import CDTLoss, cdt_loss, cdt_temperatures
from longtail.losses.checks import ClassCounts, ClassWeights
from longtail.losses.class_balanced import CBLoss, class_balanced_loss
from longtail.losses.class_weights import effective_number_weights, inverse_frequency_weights
from longtail.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from longtail.losses.distillation import distillation_loss, flatten_probabilities, soft_targets, virtual_examples
from longtail.losses.focal import FocalLoss, sigmoid_focal_loss, softmax_focal_loss
from longtail.losses.gcl import GCLLoss, cloud_noise, cloud_sizes, gcl_loss
from longtail.losses.influence_balanced import influence_balanced_loss
from longtail.losses.instance_discrimination import instance_discrimination_loss
from longtail.losses.label_smoothing import (
    LabelAwareSmoothingLoss,
    LabelSmoothingLoss,
    label_aware_smoothing,
    label_smoothing_loss,
)
from longtail.losses.ldam import LDAMLoss, ldam_loss, ldam_margins
from longtail.losses.logit_adjustment import (
    LogitAdjustmentLoss,
    logit_adjusted_loss,
    logit_adjustments,
    post_hoc_logit_adjustment,
)
from longtail.losses.reduction import Reduction, reduce_losses
from longtail.losses.seql import SoftmaxEqualizationLoss, rare_classes, softmax_equalization_loss
from longtail.losses.vs import VSLoss, vs_factors, vs_loss, vs_shifts

__all__ = [
    "BalancedSoftmaxLoss",
    "CBLoss",
    "CDTLoss",
    "ClassCountLoss",
    "ClassCounts",
    "ClassWeights",
    "CrossEntropyLoss",
    "FocalLoss",
    "GCLLoss",
    "LDAMLoss",
    "LabelAwareSmoothingLoss",
    "LabelSmoothingLoss",
    "LogitAdjustmentLoss",
    "Reduction",
    "SoftmaxEqualizationLoss",
    "VSLoss",
    "balanced_softmax_loss",
    "cdt_loss",
    "cdt_temperatures",
    "class_balanced_loss",
    "cloud_noise",
    "cloud_sizes",
    "cross_entropy_loss",
    "distillation_loss",
    "effective_number_weights",
    "flatten_probabilities",
    "gcl_loss",
    "influence_balanced_loss",
    "instance_discrimination_loss",
    "inverse_frequency_weights",
    "label_aware_smoothing",
    "label_smoothing_loss",
    "ldam_loss",
    "ldam_margins",
    "log_class_counts",
    "logit_adjusted_loss",
    "logit_adjustments",
    "post_hoc_logit_adjustment",
    "rare_classes",
    "reduce_losses",
    "sigmoid_focal_loss",
    "soft_targets",
    "softmax_equalization_loss",
    "softmax_focal_loss",
    "virtual_examples",
    "vs_factors",
    "vs_loss",
    "vs_shifts",
]
