"""The CIFAR ResNets of the long-tail papers (He et al., CVPR 2016, section 4.2; parameter-free shortcuts)."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from longtail.networks.backbone import Backbone, kaiming_normal_init


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and the parameter-free shortcut "option A".

    Where the block changes shape, the shortcut takes every ``stride``-th pixel and pads the new channels with zeros,
    half of them before and half behind.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output, at least ``in_channels``.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        before = (channels - in_channels) // 2
        self.padding = (before, channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, ceil(H / stride), ceil(W / stride))."""
        # The in-place steps only overwrite outputs of batch norm, whose backward pass reads its input.
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)

    def shortcut(self, x: Tensor) -> Tensor:
        """Return ``x`` in the shape of the block's output."""
        if self.stride != 1:
            # Average pooling over single pixels is x[:, :, ::stride, ::stride], but its gradient stays channels_last:
            # a training step takes 4 % less than with the slices.
            x = F.avg_pool2d(x, 1, self.stride)
        if any(self.padding):
            x = F.pad(x, (0, 0, 0, 0, *self.padding))
        return x


class CifarResNet(Backbone):
    """ResNet for 32x32 images: one 3x3 convolution and three stages of basic blocks, 16, 32 and 64 wide.

    Depth is ``6 * blocks + 2``: ResNet-20, -32 and -44 have 3, 5 and 7 blocks a stage. ResNet-32 with a linear head
    for 100 classes has 470,004 parameters. Layers are named as in the official code of LDAM-DRW.

    Args:
        blocks: Blocks in each stage.
        in_channels: Channels of the images.
        reduced: Stages 24 and 48 wide instead of 32 and 64, as an expert of RIDE.

    Source: github.com/kaidic/LDAM-DRW, models/resnet_cifar.py (architecture and initialisation);
        github.com/frank-xwang/RIDE-LongTailRecognition, model/ridenet_resnet_cifar.py (reduced widths).
    """

    def __init__(self, blocks: int, in_channels: int = 3, *, reduced: bool = False) -> None:
        second, third = (24, 48) if reduced else (32, 64)
        super().__init__(num_features=third)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, blocks, stride=1)
        self.layer2 = stage(16, second, blocks, stride=2)
        self.layer3 = stage(second, third, blocks, stride=2)
        kaiming_normal_init(self)

    def stem(self, images: Tensor) -> Tensor:
        """Return what enters the first stage: (B, 16, H, W)."""
        return F.relu(self.bn1(self.conv1(images)), inplace=True)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map, (B, d, H / 4, W / 4), of images (B, C, H, W)."""
        out: Tensor = self.layer3(self.layer2(self.layer1(self.stem(images))))
        return out

    def split(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return what RIDE's experts share, up to the first stage, and what each has for itself."""
        shared = {"conv1": self.conv1, "bn1": self.bn1, "relu": nn.ReLU(inplace=True), "layer1": self.layer1}
        own = {"layer2": self.layer2, "layer3": self.layer3}
        return nn.Sequential(OrderedDict(shared)), nn.Sequential(OrderedDict(own))

    def split_last(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return all layers but the last basic block, and that block: what BBN's branches share and have."""
        stem = dict(self.split()[0].named_children())
        shared = {**stem, "layer2": self.layer2, "layer3": self.layer3[:-1]}
        return nn.Sequential(OrderedDict(shared)), nn.Sequential(OrderedDict({"block": self.layer3[-1]}))


def stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Build a stage: ``blocks`` basic blocks, of which the first changes width and resolution."""
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))
