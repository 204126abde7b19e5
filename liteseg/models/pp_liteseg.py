"""PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model (arXiv 2204.02681).

In data-flow order: the Simple Pyramid Pooling Module (SPPM, section 3.3), the Unified Attention
Fusion Module (UAFM, section 3.2) in its variants, the Flexible and Lightweight Decoder (FLD,
section 3.1), the heads, and the network. Parameter names are the published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg.models.layers import ConvBN, ConvBNReLU
from liteseg.ops.conv import Conv2D
from liteseg.ops.pointwise import lerp
from liteseg.ops.pooling import channel_max
from liteseg.ops.resize import resize
from liteseg.registry import MODELS
from liteseg.utils.weights.load import load_weights


class SPPM(nn.Layer):
    """Pool to each of `bin_sizes`, 1x1 conv, upsample, add, 3x3 conv."""

    def __init__(self, in_channels: int, out_channels: int, bin_sizes: Sequence[int]):
        super().__init__()
        self.stages = nn.LayerList(
            nn.Sequential(
                nn.AdaptiveAvgPool2D(size), ConvBNReLU(in_channels, out_channels, 1, bias=True)
            )
            for size in bin_sizes
        )
        self.conv_out = ConvBNReLU(out_channels, out_channels, 3, bias=True)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        size = x.shape[2:]
        total = None
        for stage in self.stages:
            pooled = resize(stage(x), size)
            total = pooled if total is None else total + pooled
        return self.conv_out(total)


class UAFM(nn.Layer):
    """Fuse a low-level feature with the upsampled high-level one; this base class adds them.

    Subclasses weight the two by an attention α in (0, 1): `low·α + up·(1 − α)`. The paper's
    equation 2 has α on the upsampled feature; the published weights were trained with it on the
    low one, so it is there.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        out_channels: int,
        resize_mode: str = "bilinear",
    ):
        super().__init__()
        self.conv_x = ConvBNReLU(low_channels, high_channels, 3)
        self.conv_out = ConvBNReLU(high_channels, out_channels, 3)
        self.resize_mode = resize_mode

    def forward(self, low: paddle.Tensor, high: paddle.Tensor) -> paddle.Tensor:
        """(N, low, H, W), (N, high, h, w) -> (N, out, H, W)."""
        low = self.conv_x(low)
        up = resize(high, low.shape[2:], self.resize_mode)
        return self.conv_out(self.fuse(low, up))

    def fuse(self, low: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
        """Combine two features of the same shape (N, high, H, W)."""
        return low + up


class AttentionUAFM(UAFM):
    """`UAFM` weighted by α = sigmoid(conv_xy_atten(statistics(low, up)))."""

    def statistics(self, low: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
        """The input of the attention: a few pooled maps of both features."""
        raise NotImplementedError

    def fuse(self, low: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
        """low·α + up·(1 − α), as up + α·(low − up), with one product less."""
        alpha = F.sigmoid(self.conv_xy_atten(self.statistics(low, up)))
        return lerp(up, low, alpha)


class UAFM_SpAtten_S(AttentionUAFM):
    """Spatial attention (equation 3) on the channel means alone."""

    maps = 2

    def __init__(self, low_channels, high_channels, out_channels, resize_mode="bilinear"):
        super().__init__(low_channels, high_channels, out_channels, resize_mode)
        self.conv_xy_atten = nn.Sequential(ConvBNReLU(self.maps, 2, 3), ConvBN(2, 1, 3))

    def statistics(self, low: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
        """2 x (N, C, H, W) -> (N, 2, H, W)."""
        return paddle.concat([x.mean(1, keepdim=True) for x in (low, up)], axis=1)


class UAFM_SpAtten(UAFM_SpAtten_S):
    """Spatial attention (equation 3) on the mean and maximum over the channels."""

    maps = 4

    def __init__(self, low_channels, high_channels, out_channels, resize_mode="bilinear"):
        super().__init__(low_channels, high_channels, out_channels, resize_mode)
        # An unused constant 1 in the published weights of this variant.
        self.register_buffer("_scale", paddle.ones([1]))

    def statistics(self, low: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
        """2 x (N, C, H, W) -> (N, 4, H, W): mean and maximum of low, then of up."""
        maps = [f(x) for x in (low, up) for f in (lambda x: x.mean(1, keepdim=True), channel_max)]
        return paddle.concat(maps, axis=1)


class UAFM_ChAtten_S(AttentionUAFM):
    """Channel attention (equation 4) on the spatial averages alone."""

    pools = 1

    def __init__(self, low_channels, high_channels, out_channels, resize_mode="bilinear"):
        super().__init__(low_channels, high_channels, out_channels, resize_mode)
        inter = high_channels // 2
        self.conv_xy_atten = nn.Sequential(
            ConvBN(2 * self.pools * high_channels, inter, 1, activation=nn.LeakyReLU()),
            ConvBN(inter, high_channels, 1),
        )

    def statistics(self, low: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
        """2 x (N, C, H, W) -> (N, 2C, 1, 1)."""
        return paddle.concat([F.adaptive_avg_pool2d(x, 1) for x in (low, up)], axis=1)


class UAFM_ChAtten(UAFM_ChAtten_S):
    """Channel attention (equation 4) on the spatial averages and maxima."""

    pools = 2

    def statistics(self, low: paddle.Tensor, up: paddle.Tensor) -> paddle.Tensor:
        """2 x (N, C, H, W) -> (N, 4C, 1, 1): both averages, then both maxima."""
        pools = (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
        return paddle.concat([pool(x, 1) for pool in pools for x in (low, up)], axis=1)


FUSIONS = {
    c.__name__: c for c in (UAFM, UAFM_SpAtten, UAFM_SpAtten_S, UAFM_ChAtten, UAFM_ChAtten_S)
}


class FLD(nn.Layer):
    """SPPM on the deepest feature, then one fusion per level with its own number of channels.

    Args:
        feat_channels: channels of the features, finest level first.
        out_channels: channels of the decoded features.
        fusion: the class of the fusion modules.
        bin_sizes: pooled sizes of SPPM.
        context_channels: output channels of SPPM.
        resize_mode: "bilinear" or "nearest".
    """

    def __init__(
        self,
        feat_channels: Sequence[int],
        out_channels: Sequence[int],
        fusion: type[UAFM],
        bin_sizes: Sequence[int],
        context_channels: int,
        resize_mode: str,
    ):
        super().__init__()
        self.cm = SPPM(feat_channels[-1], context_channels, bin_sizes)
        high_channels = [*out_channels[1:], context_channels]
        self.arm_list = nn.LayerList(
            fusion(low, high, out, resize_mode)
            for low, high, out in zip(feat_channels, high_channels, out_channels)
        )

    def forward(self, features: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        """Features at 1/8, 1/16, 1/32 -> decoded features of the same sizes, finest first."""
        high = self.cm(features[-1])
        decoded: list[paddle.Tensor] = []
        for fusion, low in zip(reversed(list(self.arm_list)), reversed(features)):
            high = fusion(low, high)
            decoded.insert(0, high)
        return decoded


class SegHead(nn.Layer):
    """conv-BN-ReLU, then a 1x1 conv to the classes."""

    def __init__(self, in_channels: int, inter_channels: int, num_classes: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, inter_channels, 3)
        self.conv_out = Conv2D(inter_channels, num_classes, 1, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, in, H, W) -> (N, classes, H, W)."""
        return self.conv_out(self.conv(x))


@MODELS.register
class PPLiteSeg(nn.Layer):
    """The network. The defaults are PP-LiteSeg-B's decoder; T has 32/64/128 and 32/64/64.

    Args:
        num_classes: channels of the logits.
        backbone: an encoder whose `feat_channels` are the channels of its outputs.
        backbone_indices: the encoder outputs that feed the decoder, finest first.
        arm_type: UAFM_SpAtten, UAFM_ChAtten, their mean-only variants `_S`, or UAFM (addition).
        cm_bin_sizes: pooled sizes of SPPM.
        cm_out_ch: output channels of SPPM.
        arm_out_chs: decoder channels at 1/8, 1/16, 1/32; a single value is used for all.
        seg_head_inter_chs: inner channels of the heads; a single value is used for all.
        resize_mode: upsampling in UAFM, "bilinear" or "nearest".
        pretrained: weights of the whole network: path or URL of `.pdparams` or an archive. For
            another number of classes the classifier layers are not loaded; the log reports it.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer,
        backbone_indices: Sequence[int] = (2, 3, 4),
        arm_type: str = "UAFM_SpAtten",
        cm_bin_sizes: Sequence[int] = (1, 2, 4),
        cm_out_ch: int = 128,
        arm_out_chs: Sequence[int] = (64, 96, 128),
        seg_head_inter_chs: Sequence[int] = (64, 64, 64),
        resize_mode: str = "bilinear",
        pretrained: Optional[str] = None,
    ):
        super().__init__()
        levels = len(backbone_indices)
        if max(backbone_indices) >= len(backbone.feat_channels):
            raise ValueError(
                f"backbone_indices: {list(backbone_indices)} exceeds the encoder's "
                f"{len(backbone.feat_channels)} outputs (0 to {len(backbone.feat_channels) - 1})"
            )
        if arm_type not in FUSIONS:
            raise ValueError(f"arm_type: {arm_type!r} is not one of {', '.join(FUSIONS)}")
        if resize_mode not in ("bilinear", "nearest"):
            raise ValueError(f"resize_mode: {resize_mode!r} is not one of bilinear, nearest")
        decoder_channels = _per_level("arm_out_chs", arm_out_chs, levels)
        head_channels = _per_level("seg_head_inter_chs", seg_head_inter_chs, levels)
        self.num_classes = num_classes
        self.backbone = backbone
        self.backbone_indices = list(backbone_indices)
        self.ppseg_head = FLD(
            [backbone.feat_channels[i] for i in backbone_indices],
            decoder_channels,
            FUSIONS[arm_type],
            cm_bin_sizes,
            cm_out_ch,
            resize_mode,
        )
        self.seg_heads = nn.LayerList(
            SegHead(channels, inter, num_classes)
            for channels, inter in zip(decoder_channels, head_channels)
        )
        if pretrained:
            load_weights(self, pretrained, fine_tune=True, adapt_inputs=True)

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """(N, 3, H, W) normalized images -> logits (N, C, H, W), finest level first.

        One per decoder level in training, only the finest in evaluation.
        """
        size = x.shape[2:]
        return [resize(logits, size) for logits in self.coarse_logits(x)]

    def coarse_logits(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """`forward` without the last upsampling: logits at 1/8, 1/16 and 1/32."""
        outputs = self.backbone(x)
        decoded = self.ppseg_head([outputs[i] for i in self.backbone_indices])
        heads = self.seg_heads if self.training else [self.seg_heads[0]]
        return [head(feature) for head, feature in zip(heads, decoded)]


def _per_level(name: str, values: Sequence[int], levels: int) -> list[int]:
    """`values` with one entry per level; a single value is repeated."""
    if len(values) == 1:
        return list(values) * levels
    if len(values) != levels:
        raise ValueError(f"{name}: {list(values)} has {len(values)} values; expected {levels} or 1")
    return list(values)
