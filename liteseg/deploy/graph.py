"""The exported network: pixels in, labels out, batch norm folded into the convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg.ops.device import portable_operators

Side = Union[int, paddle.Tensor]


class DeployGraph(nn.Layer):
    """A network with its pre- and postprocessing.

    It normalizes the image, resizes it by `scale`, pads it, runs `network` and resizes the logits
    to the size of the image.

    Args:
        network: maps (N, C, H, W) to a list whose first item is (N, C, H, W) logits. Its method
            `coarse_logits`, if it has one, returns them before the last upsampling.
        mean: of each channel in units of `max_value`.
        std: of each channel in units of `max_value`.
        scale: size of the network's input over the size of the image.
        kind: of the output: label, logits, softmax or confidence.
        multiple: zeros at the bottom and right pad the network's input to multiples of it.
        temperature: the logits at full size are divided by it.
        max_value: largest possible value of the images.
        dtype: of the images, uint8 or float32.
    """

    def __init__(
        self,
        network: nn.Layer,
        mean: Sequence[float],
        std: Sequence[float],
        scale: float,
        kind: str,
        multiple: Optional[int] = None,
        temperature: float = 1.0,
        max_value: float = 255,
        dtype: str = "uint8",
    ):
        super().__init__()
        self.network = with_exact_pooling(folded(network, len(mean)))
        self.coarse = getattr(self.network, "coarse_logits", self.network)
        factor = 1 / (max_value * np.asarray(std, np.float64))
        offset = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
        for name, values in (("factor", factor), ("offset", offset)):
            buffer = paddle.to_tensor(values.astype(np.float32).reshape(1, -1, 1, 1))
            self.register_buffer(name, buffer)
        self.scale = scale
        self.kind = kind
        self.multiple = multiple
        self.temperature = temperature
        self.channels = len(mean)
        self.dtype = dtype

    def forward(self, image: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """(N, H, W, C) -> the output of `kind`, and the coarse logits (N, C, h, w)."""
        # (N,H,W,C) -> (N,C,H,W)
        x = image.astype("float32").transpose([0, 3, 1, 2]) * self.factor + self.offset
        size = x.shape[2:]
        if self.scale != 1:
            x = _bilinear(x, [_scaled(side, self.scale) for side in size])
        inner = x.shape[2:]
        if self.multiple:
            x = _padded(x, self.multiple)
        coarse = self.coarse(x)[0]
        # Resized twice, as in evaluation: first to the size of the network's input.
        scores = _bilinear(coarse, x.shape[2:])
        if self.multiple:
            scores = scores[:, :, : inner[0], : inner[1]]
        if self.scale != 1:
            scores = _bilinear(scores, size)
        if self.kind == "label":
            return _labels(scores), coarse
        if self.temperature != 1:
            scores = scores * (1 / self.temperature)
        if self.kind == "logits":
            return scores, coarse
        probabilities = F.softmax(scores, axis=1)
        if self.kind == "softmax":
            return probabilities, coarse
        confidence = paddle.floor(probabilities.max(axis=1) * 255 + 0.5).astype("uint8")
        return paddle.stack([_labels(scores), confidence], axis=1), coarse


def _labels(scores: paddle.Tensor) -> paddle.Tensor:
    return paddle.argmax(scores, axis=1, dtype="int32").astype("uint8")


def folded(network: nn.Layer, channels: int = 3) -> nn.Layer:
    """A copy in eval mode whose batch norms are folded into the convolutions before them.

    The pairs of convolution and batch norm are found in one forward pass of an image with
    `channels`.
    """
    network = copy.deepcopy(network)
    network.eval()
    outputs: list[tuple[nn.Layer, paddle.Tensor]] = []
    pairs: list[tuple[nn.Layer, nn.Layer]] = []

    def after_conv(layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> Any:
        outputs.append((layer, output))

    def before_norm(layer: nn.Layer, inputs: Any) -> Any:
        pairs.extend((conv, layer) for conv, output in outputs if output is inputs[0])

    handles = []
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D):
            handles.append(layer.register_forward_post_hook(after_conv))
        elif isinstance(layer, nn.BatchNorm2D):
            handles.append(layer.register_forward_pre_hook(before_norm))
    with paddle.no_grad(), portable_operators():  # for one pass, CPU kernels are not worth loading
        network(paddle.zeros([1, channels, 64, 64]))
        for handle in handles:
            handle.remove()
        for conv, norm in pairs:
            _fold(conv, norm)
    norms = {id(norm) for _, norm in pairs}
    _replace(network, lambda layer: nn.Identity() if id(layer) in norms else None)
    return network


def with_exact_pooling(network: nn.Layer) -> nn.Layer:
    """The network with matrix products in place of its adaptive average pools.

    ONNX only has pools of a fixed kernel, which differ unless the bins divide the size, and can't
    express adaptive ones for images of any size.
    """
    return _replace(
        network,
        lambda layer: (
            _AdaptivePool(layer._output_size) if isinstance(layer, nn.AdaptiveAvgPool2D) else None
        ),
    )


class _AdaptivePool(nn.Layer):
    """`nn.AdaptiveAvgPool2D`: bin i of n covers floor(i·size/n) to ceil((i+1)·size/n)."""

    def __init__(self, bins: Union[int, Sequence[int]]):
        super().__init__()
        self.rows, self.columns = (bins, bins) if isinstance(bins, int) else bins

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(N, C, H, W) -> (N, C, rows, columns)."""
        if self.rows == self.columns == 1:
            return x.mean([2, 3], keepdim=True)
        rows, columns = _bin_weights(x.shape[2], self.rows), _bin_weights(x.shape[3], self.columns)
        # Columns first: only the first factor can be quantized, and OpenVINO would otherwise keep
        # all layers before it in float.
        return paddle.matmul(rows, paddle.matmul(x, columns, transpose_y=True))


def _bin_weights(size: Side, bins: int) -> paddle.Tensor:
    """(bins, size) float32: the weight of each position in the mean of each bin."""
    position = paddle.arange(size, dtype="int64").unsqueeze(0)
    index = paddle.arange(bins, dtype="int64").unsqueeze(1)
    start = index * size // bins
    end = ((index + 1) * size + bins - 1) // bins
    inside = paddle.logical_and(position >= start, position < end)
    return inside.astype("float32") / (end - start).astype("float32")


def _fold(conv: nn.Layer, norm: nn.Layer) -> None:
    factor = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
    bias = norm.bias - norm._mean * factor
    if conv.bias is None:
        conv.bias = conv.create_parameter(bias.shape, is_bias=True)
    else:
        bias = bias + conv.bias * factor
    conv.bias.set_value(bias)
    conv.weight.set_value(conv.weight * factor.reshape([-1, 1, 1, 1]))


def _replace(network: nn.Layer, substitute: Callable[[nn.Layer], Optional[nn.Layer]]) -> nn.Layer:
    """Replace every layer by `substitute(layer)` unless that is None."""
    for parent in network.sublayers(include_self=True):
        for name, child in list(parent.named_children()):
            replacement = substitute(child)
            if replacement is not None:
                parent.add_sublayer(name, replacement)
    return network


def _scaled(side: Side, scale: float) -> Side:
    """A side of the image after scaling, rounded as in evaluation."""
    if isinstance(side, int):
        return int(side * scale + 0.5)
    return paddle.floor(side.astype("float32") * scale + 0.5).astype("int32")


def _padded(x: paddle.Tensor, multiple: int) -> paddle.Tensor:
    """Zeros up to multiples; a fixed pad and a cut convert to ONNX for images of any size."""
    h, w = ((side + multiple - 1) // multiple * multiple for side in x.shape[2:])
    # With pads for all axes: of those for two, paddle2onnx 2.1 writes a random value.
    return F.pad(x, [0, 0, 0, 0, 0, multiple - 1, 0, multiple - 1])[:, :, :h, :w]


def _bilinear(x: paddle.Tensor, size: Sequence[Side]) -> paddle.Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
