"""Blocks shared by the encoders, the decoder and the heads, with the published parameter names.

Shapes throughout `liteseg.models`: N images, C channels, (H, W) rows and columns.
"""

from __future__ import annotations

from typing import Optional

from paddle import nn

from liteseg.ops.conv import Conv2D


class ConvBN(nn.Sequential):
    """Convolution, batch norm and an optional activation: (N, in, H, W) -> (N, out, H/s, W/s).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd; the padding is kernel_size // 2.
        stride: s above; sizes are rounded up.
        bias: whether the convolution has a bias.
        activation: the last layer.
        names: of the convolution and the batch norm in state-dict keys.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        bias: bool = False,
        activation: Optional[nn.Layer] = None,
        names: tuple[str, str] = ("_conv", "_batch_norm"),
    ):
        conv = Conv2D(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias_attr=None if bias else False,
        )
        layers = [(names[0], conv), (names[1], nn.BatchNorm2D(out_channels))]
        super().__init__(*layers, *([] if activation is None else [("_act", activation)]))


class ConvBNReLU(ConvBN):
    """`ConvBN` with a ReLU as the activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, **options
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, activation=nn.ReLU(), **options
        )
