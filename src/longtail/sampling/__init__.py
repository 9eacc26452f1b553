"""Index streams: which training images come next; pure functions of seed and epoch."""

from longtail.sampling.index import ClassIndex
from longtail.sampling.probabilities import (
    class_probabilities,
    effective_number_probabilities,
    progressive_probabilities,
    reverse_probabilities,
)
from longtail.sampling.samplers import (
    ClassBalancedSampling,
    CyclicClassSampling,
    DeferredSampling,
    EffectiveNumberSampling,
    InstanceSampling,
    OverSampling,
    PowerSampling,
    ProgressiveSampling,
    ReverseSampling,
    Sampling,
    SquareRootSampling,
    UnderSampling,
)
from longtail.sampling.stream import SamplerAdapter, epoch_indices

__all__ = [
    "ClassBalancedSampling",
    "ClassIndex",
    "CyclicClassSampling",
    "DeferredSampling",
    "EffectiveNumberSampling",
    "InstanceSampling",
    "OverSampling",
    "PowerSampling",
    "ProgressiveSampling",
    "ReverseSampling",
    "SamplerAdapter",
    "Sampling",
    "SquareRootSampling",
    "UnderSampling",
    "class_probabilities",
    "effective_number_probabilities",
    "epoch_indices",
    "progressive_probabilities",
    "reverse_probabilities",
]
