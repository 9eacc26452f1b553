"""What a person looks at after a run: pictures of shot groups, classes, experts, boundaries and H2T's forces."""

from longtail.report.boundary import TwoClasses, boundary_plane, decision_boundary
from longtail.report.decoupling import decoupling_grid
from longtail.report.expert_classes import class_accuracy_of_experts
from longtail.report.fusion import Forces, force_histograms, fusion_forces, ratio_sweep, sampled_forces
from longtail.report.plots import Metrics, per_class_gain, shot_group_bars
from longtail.report.virtual_examples import virtual_example_distribution
from longtail.report.weights import LearnedWeights, learned_weights, weights_over_training

__all__ = [
    "Forces",
    "LearnedWeights",
    "Metrics",
    "TwoClasses",
    "boundary_plane",
    "class_accuracy_of_experts",
    "decision_boundary",
    "decoupling_grid",
    "force_histograms",
    "fusion_forces",
    "learned_weights",
    "per_class_gain",
    "ratio_sweep",
    "sampled_forces",
    "shot_group_bars",
    "virtual_example_distribution",
    "weights_over_training",
]
