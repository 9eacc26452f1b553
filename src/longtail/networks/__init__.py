"""Networks: backbones that turn images into features, heads that turn features into logits."""

from longtail.networks.backbone import Backbone, pool
from longtail.networks.cifar_resnet import BasicBlock, CifarResNet, stage
from longtail.networks.experts import ExpertBackbone, ExpertHead, build_expert_network
from longtail.networks.heads import (
    CosineHead,
    LearnableScalingHead,
    LinearHead,
    NearestMeanHead,
    TauNormHead,
    linear_full_precision,
)
from longtail.networks.network import BACKBONES, Network, build_network
from longtail.networks.small import SmallNet
from longtail.networks.teacher import Teacher

__all__ = [
    "BACKBONES",
    "Backbone",
    "BasicBlock",
    "CifarResNet",
    "CosineHead",
    "ExpertBackbone",
    "ExpertHead",
    "LearnableScalingHead",
    "LinearHead",
    "NearestMeanHead",
    "Network",
    "SmallNet",
    "TauNormHead",
    "Teacher",
    "build_expert_network",
    "build_network",
    "linear_full_precision",
    "pool",
    "stage",
]
