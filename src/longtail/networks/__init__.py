"""Networks: backbones that turn images into features, heads that turn features into logits."""

from longtail.networks.allies import AllyHead
from longtail.networks.backbone import Backbone, pool
from longtail.networks.bilateral import BilateralHead
from longtail.networks.causal import CausalNormHead
from longtail.networks.cifar_resnet import BasicBlock, CifarResNet, stage
from longtail.networks.experts import ExpertBackbone, ExpertHead, build_expert_network
from longtail.networks.features import FeatureBackbone
from longtail.networks.heads import (
    CosineHead,
    LearnableScalingHead,
    LinearHead,
    NearestMeanHead,
    TauNormHead,
    linear_full_precision,
)
from longtail.networks.memory import MetaEmbeddingHead
from longtail.networks.network import BACKBONES, PHOTO_BACKBONES, Network, build_backbone, build_network
from longtail.networks.resnet import ResNet
from longtail.networks.routing import RoutedHead, ask_in_turn, multiplications, running_means
from longtail.networks.small import SmallNet
from longtail.networks.teacher import Renormalise, Teacher
from longtail.networks.timm_backbone import TimmBackbone
from longtail.networks.weights import initial_weights, load_backbone, normalisation, read_weights, starting_from

__all__ = [
    "BACKBONES",
    "PHOTO_BACKBONES",
    "AllyHead",
    "Backbone",
    "BasicBlock",
    "BilateralHead",
    "CausalNormHead",
    "CifarResNet",
    "CosineHead",
    "ExpertBackbone",
    "ExpertHead",
    "FeatureBackbone",
    "LearnableScalingHead",
    "LinearHead",
    "MetaEmbeddingHead",
    "NearestMeanHead",
    "Network",
    "Renormalise",
    "ResNet",
    "RoutedHead",
    "SmallNet",
    "TauNormHead",
    "Teacher",
    "TimmBackbone",
    "ask_in_turn",
    "build_backbone",
    "build_expert_network",
    "build_network",
    "initial_weights",
    "linear_full_precision",
    "load_backbone",
    "multiplications",
    "normalisation",
    "pool",
    "read_weights",
    "running_means",
    "stage",
    "starting_from",
]
