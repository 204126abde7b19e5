"""STDC encoders: "Rethinking BiSeNet For Real-time Semantic Segmentation" (arXiv 2104.13188).

Parameter names are the published ones (`features.<i>.…`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
from paddle import nn

from liteseg.models.layers import ConvBNReLU
from liteseg.ops.conv import Conv2D
from liteseg.ops.pooling import halving_average_pool
from liteseg.registry import BACKBONES
from liteseg.utils.weights.load import load_weights

_INITIALIZERS = ("published", "kaiming")


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
) -> ConvBNReLU:
    """A `ConvBNReLU` with the encoders' parameter names."""
    return ConvBNReLU(in_channels, out_channels, kernel_size, stride, names=("conv", "bn"))


class ShortTermDenseConcat(nn.Layer):
    """The STDC module (section 3.1): four convolutions of decreasing width, concatenated.

    (N, in, H, W) -> (N, out, H/stride, W/stride). With stride 2, a depthwise convolution halves the
    main path, and an average pool halves the shortcut; its mean excludes the padding, or not.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, count_include_pad: bool = False
    ):
        super().__init__()
        half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
        self.conv_list = nn.LayerList(
            [
                conv_bn_relu(in_channels, half, kernel_size=1),
                conv_bn_relu(half, quarter),
                conv_bn_relu(quarter, eighth),
                conv_bn_relu(eighth, eighth),
            ]
        )
        self.stride, self.count_include_pad = stride, count_include_pad
        if stride == 2:
            self.avd_layer = nn.Sequential(
                Conv2D(half, half, 3, stride=2, padding=1, groups=half, bias_attr=False),
                nn.BatchNorm2D(half),
            )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Apply the module."""
        first = self.conv_list[0](x)
        x = first
        if self.stride == 2:
            x = self.avd_layer(first)
            first = halving_average_pool(first, self.count_include_pad)
        outputs = [first]
        for conv in list(self.conv_list)[1:]:
            x = conv(x)
            outputs.append(x)
        return paddle.concat(outputs, axis=1)


class STDCNet(nn.Layer):
    """Five stages of stride 2; `feat_channels` are the widths of their outputs.

    Args:
        modules: numbers of STDC modules in stages 3, 4 and 5.
        pretrained: weights of the encoder: a path or URL of `.pdparams` or an archive with one.
        init: initialization without weights. "published" is PaddleSeg's N(0, 0.001), meant for a
            pretrained encoder; "kaiming" (N(0, 2 / fan-in)) trains far better from scratch.
        count_include_pad: whether the means of the shortcuts count the padding, as PyTorch does by
            default: for weights that were trained there.
        in_channels: of the images. Weights of three channels are adapted: the first three stay,
            each further one is their mean, and a single one is their sum (a gray image).

    Raises:
        ValueError: `init` is unknown, or `in_channels` is not above 0.
    """

    feat_channels = (32, 64, 256, 512, 1024)

    def __init__(
        self,
        modules: Sequence[int],
        pretrained: Optional[str],
        init: str,
        count_include_pad: bool = False,
        in_channels: int = 3,
    ):
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels: {in_channels} is not above 0")
        if init not in _INITIALIZERS:
            raise ValueError(f"init: {init!r} is not one of {', '.join(_INITIALIZERS)}")
        blocks: list[nn.Layer] = [
            conv_bn_relu(in_channels, 32, stride=2),
            conv_bn_relu(32, 64, stride=2),
        ]
        self._stage_ends = [1, 2]
        channels = 64
        for count, out_channels in zip(modules, self.feat_channels[2:]):
            for i in range(count):
                stride = 1 if i else 2
                blocks.append(
                    ShortTermDenseConcat(channels, out_channels, stride, count_include_pad)
                )
                channels = out_channels
            self._stage_ends.append(len(blocks))
        self.features = nn.Sequential(*blocks)
        self._initialize(init)
        if pretrained:
            load_weights(self, pretrained, adapt_inputs=True)

    def _initialize(self, init: str) -> None:
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D):
                fan_in = layer.weight[0].size
                std = 0.001 if init == "published" else (2 / fan_in) ** 0.5
                nn.initializer.Normal(0.0, std)(layer.weight)

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """(N, in_channels, H, W) -> features at 1/2, 1/4, 1/8, 1/16 and 1/32 (sizes rounded up)."""
        outputs = []
        for i, block in enumerate(self.features, 1):
            x = block(x)
            if i in self._stage_ends:
                outputs.append(x)
        return outputs


@BACKBONES.register
class STDC1(STDCNet):
    """The encoder of PP-LiteSeg-T; arguments as `STDCNet`."""

    def __init__(
        self,
        pretrained: Optional[str] = None,
        init: str = "published",
        count_include_pad: bool = False,
        in_channels: int = 3,
    ):
        super().__init__((2, 2, 2), pretrained, init, count_include_pad, in_channels)


@BACKBONES.register
class STDC2(STDCNet):
    """The encoder of PP-LiteSeg-B; arguments as `STDCNet`."""

    def __init__(
        self,
        pretrained: Optional[str] = None,
        init: str = "published",
        count_include_pad: bool = False,
        in_channels: int = 3,
    ):
        super().__init__((4, 5, 3), pretrained, init, count_include_pad, in_channels)
