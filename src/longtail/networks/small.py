"""A small network for small pictures: the 8x8 digits that every check trains on in seconds."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from longtail.networks.backbone import Backbone, kaiming_normal_init


class SmallNet(Backbone):
    """Three 3x3 convolutions (32, 64, 64 wide) with batch norm and ReLU, 2x2 maxima between them; 64 features.

    Maxima where other networks have strides: on the long-tailed digits they are better and faster.

    Args:
        in_channels: Channels of the images.
        reduced: 48 instead of 64 wide, as an expert among several.
    """

    def __init__(self, in_channels: int = 1, *, reduced: bool = False) -> None:
        width = 48 if reduced else 64
        super().__init__(num_features=width)
        self.layers = nn.Sequential(
            *_conv_bn_relu(in_channels, 32),
            nn.MaxPool2d(2),
            *_conv_bn_relu(32, width),
            nn.MaxPool2d(2),
            *_conv_bn_relu(width, width),
        )
        kaiming_normal_init(self)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map, (B, d, H / 4, W / 4), of images (B, C, H, W)."""
        out: Tensor = self.layers(images)
        return out

    def split(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return what experts share, the first convolution with its maximum, and what each has for itself."""
        layers = list(self.layers.named_children())
        return nn.Sequential(OrderedDict(layers[:4])), nn.Sequential(OrderedDict(layers[4:]))

    def split_last(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return all layers but the last convolution with its batch norm and ReLU, and those."""
        layers = list(self.layers.named_children())
        return nn.Sequential(OrderedDict(layers[:-3])), nn.Sequential(OrderedDict(layers[-3:]))


def _conv_bn_relu(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
