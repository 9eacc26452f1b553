"""A small network for small pictures: the 8x8 digits that every check trains on in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from longtail.networks.backbone import Backbone, kaiming_normal_init


class SmallNet(Backbone):
    """Three 3x3 convolutions (32, 64, 64 wide) with batch norm and ReLU, 2x2 maxima between them; 64 features.

    Maxima where other networks have strides: on the long-tailed digits they are better and faster.

    Args:
        in_channels: Channels of the images.
    """

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__(num_features=64)
        self.layers = nn.Sequential(
            *_conv_bn_relu(in_channels, 32),
            nn.MaxPool2d(2),
            *_conv_bn_relu(32, 64),
            nn.MaxPool2d(2),
            *_conv_bn_relu(64, 64),
        )
        kaiming_normal_init(self)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map, (B, 64, H / 4, W / 4), of images (B, C, H, W)."""
        out: Tensor = self.layers(images)
        return out


def _conv_bn_relu(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
