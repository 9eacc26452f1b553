"""The ResNets for photographs (He et al., CVPR 2016; Xie et al., ResNeXt, CVPR 2017), named as in torchvision."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from longtail.networks.backbone import Backbone


class ResidualBlock(nn.Module):
    """Convolutions with batch norm, one after the other, beside a shortcut.

    A subclass has the layers ``conv1``, ``bn1``, ``conv2``, ``bn2`` and so on.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the block.
    """

    convolutions = 2

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        out = x
        # The in-place steps only overwrite outputs of batch norm, whose backward pass reads its input.
        for k in range(1, self.convolutions + 1):
            out = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(out))
            if k < self.convolutions:
                out = F.relu(out, inplace=True)
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)


class PhotoBasicBlock(ResidualBlock):
    """Two 3x3 convolutions; the shortcut is a 1x1 convolution where the shape changes ("option B").

    Args:
        in_channels: Channels of the input.
        width: Channels of the output.
        stride: Stride of the first convolution.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__(in_channels, width, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions, four times as wide at the end as inside; the 3x3 one has the stride.

    Args:
        in_channels: Channels of the input.
        width: A quarter of the output's channels.
        stride: Stride of the 3x3 convolution.
        groups: Groups of the 3x3 convolution (ResNeXt).
        group_width: Channels of each group where ``width`` is 64; they grow with it.
    """

    expansion = 4
    convolutions = 3

    def __init__(self, in_channels: int, width: int, stride: int = 1, groups: int = 1, group_width: int = 64) -> None:
        super().__init__(in_channels, 4 * width, stride)
        inside = width * group_width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)


class ResNet(Backbone):
    """ResNet for photographs: 7x7 convolution, 3x3 maximum and four stages of blocks; the sides shrink 32-fold.

    Parameters are named and counted as in torchvision, whose ``fc`` is the network's head here. ResNet-10, which
    torchvision does not have, is one basic block a stage (OLTR and its successors on ImageNet-LT).

    Args:
        blocks: Blocks of each of the four stages.
        in_channels: Channels of the images.
        bottleneck: Bottlenecks instead of basic blocks: 2048 features instead of 512.
        groups: Groups of each bottleneck's 3x3 convolution; 32 in ResNeXt-50 (32x4d).
        group_width: See `Bottleneck`; 4 in ResNeXt-50 (32x4d).
        reduced: Three quarters of the channels in the third and fourth stage, as an expert of RIDE.

    Source: github.com/pytorch/vision, torchvision/models/resnet.py (names and initialisation; the stride is in the
        3x3 convolution); github.com/frank-xwang/RIDE-LongTailRecognition (reduced widths and what experts share).
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        in_channels: int = 3,
        *,
        bottleneck: bool = False,
        groups: int = 1,
        group_width: int = 64,
        reduced: bool = False,
    ) -> None:
        widths = (64, 128, 192, 384) if reduced else (64, 128, 256, 512)
        expansion = Bottleneck.expansion if bottleneck else PhotoBasicBlock.expansion
        super().__init__(num_features=widths[-1] * expansion)
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for k, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            layers: list[nn.Module] = []
            for number in range(count):
                stride = 2 if k and not number else 1
                if bottleneck:
                    layers.append(Bottleneck(channels, width, stride, groups, group_width))
                else:
                    layers.append(PhotoBasicBlock(channels, width, stride))
                channels = width * expansion
            setattr(self, f"layer{k + 1}", nn.Sequential(*layers))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map, (B, d, H / 32, W / 32), of images (B, C, H, W)."""
        out: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for k in range(1, 5):
            out = getattr(self, f"layer{k}")(out)
        return out

    def split(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return what RIDE's experts share, up to the second stage, and what each has for itself."""
        names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
        layers = [(name, self.get_submodule(name)) for name in names]
        return nn.Sequential(OrderedDict(layers[:6])), nn.Sequential(OrderedDict(layers[6:]))

    def split_last(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return all layers but the last block, and that block: what BBN's branches share and have."""
        shared, own = (dict(part.named_children()) for part in self.split())
        blocks = own.pop("layer4")
        assert isinstance(blocks, nn.Sequential)
        before = OrderedDict({**shared, **own, "layer4": blocks[:-1]})
        return nn.Sequential(before), nn.Sequential(OrderedDict({"block": blocks[-1]}))
