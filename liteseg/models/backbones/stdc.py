"""STDC encoders: "Rethinking BiSeNet For Real-time Semantic Segmentation" (arXiv 2104.13188).

Parameter names are the published ones (`features.<i>.…`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg.ops import onednn
from liteseg.registry import BACKBONES
from liteseg.utils.weights.load import load_weights

_INITIALISERS = ("published", "kaiming")


class ConvBNReLU(nn.Layer):
    """Convolution without bias, batch norm, ReLU; (N, C, H, W) -> (N, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias_attr=False,
        )
        self.bn = nn.BatchNorm2D(out_channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """See the class."""
        return F.relu(self.bn(self.conv(x)))


class ShortTermDenseConcat(nn.Layer):
    """The STDC module (section 3.1): four convolutions of shrinking width, concatenated.

    (N, in, H, W) -> (N, out, H/stride, W/stride). With stride 2 a depthwise convolution halves the
    main path, and an average pool that leaves the padding out of the mean halves the short-cut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
        self.conv_list = nn.LayerList(
            [
                ConvBNReLU(in_channels, half, kernel_size=1),
                ConvBNReLU(half, quarter),
                ConvBNReLU(quarter, eighth),
                ConvBNReLU(eighth, eighth),
            ]
        )
        self.stride = stride
        if stride == 2:
            self.avd_layer = nn.Sequential(
                nn.Conv2D(half, half, 3, stride=2, padding=1, groups=half, bias_attr=False),
                nn.BatchNorm2D(half),
            )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """See the class."""
        first = self.conv_list[0](x)
        x = first
        if self.stride == 2:
            x = self.avd_layer(first)
            first = _halve(first)
        outputs = [first]
        for conv in list(self.conv_list)[1:]:
            x = conv(x)
            outputs.append(x)
        return paddle.concat(outputs, axis=1)


def _halve(x: paddle.Tensor) -> paddle.Tensor:
    if onednn.takes(x):
        return onednn.halving_average_pool(x)
    return F.avg_pool2d(x, kernel_size=3, stride=2, padding=1, exclusive=True)


class STDCNet(nn.Layer):
    """Five stages of stride 2; `feat_channels` are the widths of their outputs.

    Args:
        modules: STDC modules in stages 3, 4 and 5.
        pretrained: weights of the encoder: a path or URL of `.pdparams` or an archive with one.
        init: initialisation without weights. "published" is PaddleSeg's N(0, 0.001), which expects
            a pretrained encoder to follow; "kaiming" (N(0, 2 / fan-in)) trains far better from
            scratch.
    """

    feat_channels = (32, 64, 256, 512, 1024)

    def __init__(self, modules: Sequence[int], pretrained: Optional[str], init: str):
        super().__init__()
        if init not in _INITIALISERS:
            raise ValueError(f"init: {init!r} is not one of {', '.join(_INITIALISERS)}")
        blocks = [ConvBNReLU(3, 32, stride=2), ConvBNReLU(32, 64, stride=2)]
        self._stage_ends = [1, 2]
        channels = 64
        for count, out_channels in zip(modules, self.feat_channels[2:]):
            for i in range(count):
                blocks.append(ShortTermDenseConcat(channels, out_channels, stride=1 if i else 2))
                channels = out_channels
            self._stage_ends.append(len(blocks))
        self.features = nn.Sequential(*blocks)
        self._initialise(init)
        if pretrained:
            load_weights(self, pretrained)

    def _initialise(self, init: str) -> None:
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D):
                fan_in = layer.weight[0].size
                std = 0.001 if init == "published" else (2 / fan_in) ** 0.5
                nn.initializer.Normal(0.0, std)(layer.weight)

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """(N, 3, H, W) -> features at 1/2, 1/4, 1/8, 1/16 and 1/32 (sizes rounded up)."""
        outputs = []
        for i, block in enumerate(self.features, 1):
            x = block(x)
            if i in self._stage_ends:
                outputs.append(x)
        return outputs


@BACKBONES.register
class STDC1(STDCNet):
    """The encoder of PP-LiteSeg-T; arguments as `STDCNet`."""

    def __init__(self, pretrained: Optional[str] = None, init: str = "published"):
        super().__init__((2, 2, 2), pretrained, init)


@BACKBONES.register
class STDC2(STDCNet):
    """The encoder of PP-LiteSeg-B; arguments as `STDCNet`."""

    def __init__(self, pretrained: Optional[str] = None, init: str = "published"):
        super().__init__((4, 5, 3), pretrained, init)
