"""PP-LiteSeg-T in plain PyTorch, with the parameter names of liteseg and PaddleSeg.

The same layers as `liteseg/models/pp_liteseg.py`, written as briefly as they can be, to measure how
fast the network trains outside Paddle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER_CHANNELS = (256, 512, 1024)  # at 1/8, 1/16, 1/32
CONTEXT_CHANNELS = 128
DECODER_CHANNELS = (32, 64, 128)
HEAD_CHANNELS = (32, 64, 64)
POOLED_SIZES = (1, 2, 4)


class ConvBN(nn.Sequential):
    """Convolution with "same" padding, batch norm and, if `relu`, a ReLU."""

    names = ("_conv", "_batch_norm")

    def __init__(self, inputs: int, outputs: int, kernel: int, stride=1, relu=True, bias=False):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        layers = zip((*self.names, "relu"), (conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)))
        super().__init__(OrderedDict(list(layers)[: 3 if relu else 2]))


class EncoderConvBN(ConvBN):
    """The same under the encoder's parameter names."""

    names = ("conv", "bn")


class STDC(nn.Module):
    """Short-term dense concatenation: four convolutions of shrinking width, concatenated."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        widths = [inputs, outputs // 2, outputs // 4, outputs // 8, outputs // 8]
        kernels = (1, 3, 3, 3)
        self.conv_list = nn.ModuleList(map(EncoderConvBN, widths, widths[1:], kernels))
        if stride == 2:
            half = widths[1]
            self.avd_layer = nn.Sequential(
                nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False), nn.BatchNorm2d(half)
            )

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.conv_list
        x = shortcut = first(x)
        if hasattr(self, "avd_layer"):
            x = self.avd_layer(x)
            shortcut = F.avg_pool2d(shortcut, 3, 2, 1, count_include_pad=False)
        outputs = [shortcut]
        for conv in others:
            x = conv(x)
            outputs.append(x)
        return torch.cat(outputs, 1)


class STDC1(nn.Module):
    """The encoder: features at 1/8, 1/16 and 1/32."""

    def __init__(self):
        super().__init__()
        blocks = [EncoderConvBN(3, 32, 3, 2), EncoderConvBN(32, 64, 3, 2)]
        for inputs, outputs in zip((64, *ENCODER_CHANNELS), ENCODER_CHANNELS):
            blocks += [STDC(inputs, outputs, 2), STDC(outputs, outputs, 1)]
        self.features = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for block in self.features:
            x = block(x)
            outputs.append(x)
        return outputs[3::2]


class SPPM(nn.Module):
    """Simple pyramid pooling: the context of the deepest feature at several sizes, added."""

    def __init__(self):
        super().__init__()
        inputs, outputs = ENCODER_CHANNELS[-1], CONTEXT_CHANNELS
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), ConvBN(inputs, outputs, 1, bias=True))
            for size in POOLED_SIZES
        )
        self.conv_out = ConvBN(outputs, outputs, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(sum(resize(stage(x), x.shape[2:]) for stage in self.stages))


class UAFM(nn.Module):
    """Fusion of a low-level and an upsampled high-level feature with spatial attention."""

    def __init__(self, low: int, high: int, outputs: int):
        super().__init__()
        self.conv_x = ConvBN(low, high, 3)
        self.conv_xy_atten = nn.Sequential(ConvBN(4, 2, 3), ConvBN(2, 1, 3, relu=False))
        self.conv_out = ConvBN(high, outputs, 3)
        self.register_buffer("_scale", torch.ones(1))  # unused, but in published weights

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.conv_x(low)
        up = resize(high, low.shape[2:])
        maps = [x for y in (low, up) for x in (y.mean(1, keepdim=True), y.amax(1, keepdim=True))]
        attention = self.conv_xy_atten(torch.cat(maps, 1)).sigmoid()
        return self.conv_out(torch.lerp(up, low, attention))


class Decoder(nn.Module):
    """The flexible and lightweight decoder: SPPM, then a fusion for each level."""

    def __init__(self):
        super().__init__()
        self.cm = SPPM()
        high = (*DECODER_CHANNELS[1:], CONTEXT_CHANNELS)
        self.arm_list = nn.ModuleList(map(UAFM, ENCODER_CHANNELS, high, DECODER_CHANNELS))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        outputs = [self.cm(features[-1])]
        for fusion, low in zip(reversed(self.arm_list), reversed(features)):
            outputs.append(fusion(low, outputs[-1]))
        return outputs[:0:-1]


class Head(nn.Module):
    """Features to logits."""

    def __init__(self, inputs: int, inter: int, classes: int):
        super().__init__()
        self.conv = ConvBN(inputs, inter, 3)
        self.conv_out = nn.Conv2d(inter, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class PPLiteSeg(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W): three in training, finest first; one in eval."""

    def __init__(self, classes: int):
        super().__init__()
        self.backbone = STDC1()
        self.ppseg_head = Decoder()
        self.seg_heads = nn.ModuleList(
            Head(inputs, inter, classes) for inputs, inter in zip(DECODER_CHANNELS, HEAD_CHANNELS)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        decoded = self.ppseg_head(self.backbone(x))
        heads = self.seg_heads if self.training else self.seg_heads[:1]
        return [resize(head(feature), x.shape[2:]) for head, feature in zip(heads, decoded)]

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load a liteseg state dict; its keys must be those of this network."""
        self.load_state_dict({torch_key(key): torch.tensor(arrays[key]) for key in arrays})


def torch_key(key: str) -> str:
    """The key of a liteseg state dict under PyTorch's names of the batch norm statistics."""
    return key.replace("._mean", ".running_mean").replace("._variance", ".running_var")


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Bilinear, with half-pixel centers."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
