"""Parameters, multiply-adds and peak activation memory of a network in evaluation, by part.

All are counted in one forward pass of one image, so only layers that run in evaluation count.

- Parameters: those of every layer that ran, each once. Paddle stores batch norm's mean and variance
  as parameters, and the published numbers of PP-LiteSeg include them.
- Multiply-adds: those of 2-D convolutions and linear layers, with the addition of a bias as one
  (as in `paddle.flops`), and one for every value of a batch norm's output (`paddle.flops` counts
  two). Activations, pooling, resizing and sums are not counted.
- Peak activation memory: the largest number of bytes of the tensors that exist at the same time in
  the forward pass: its input and all results of Python functions, each from its return until its
  last reference is gone. Parameters, the workspace of operators and temporaries of arithmetic
  expressions are not included. It is the same on every device.
"""

from __future__ import annotations

import contextlib
import math
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import paddle
from paddle import nn

from liteseg.ops.device import portable_operators

OUTSIDE = "final upsample and other functions"


@dataclass
class Part:
    """The cost of a part of the network, or of several neighbors with the same output size.

    Attributes:
        name: name of the layer in the network.
        output: (C, H, W) of its last output; empty outside of all parts.
        parameters: number of values.
        multiply_adds: for one image.
        peak_bytes: most bytes in use in the whole network while this part ran; 0 if it created no
            tensor.
    """

    name: str
    output: tuple[int, ...] = ()
    parameters: int = 0
    multiply_adds: int = 0
    peak_bytes: int = 0


class Complexity(NamedTuple):
    """The parts in the order in which they ran, and their total."""

    parts: list[Part]
    total: Part


@paddle.no_grad()
def measure(model: nn.Layer, size: tuple[int, int], channels: int = 3) -> Complexity:
    """Run `model` on one black image in eval mode and count; the model is not changed.

    The parts are the items of layer lists, and otherwise the layers two levels down. Neighbors in
    a list with outputs of the same size form one part (a stage of the encoder).

    Args:
        model: accepts (1, channels, H, W) float32.
        size: (w, h) of the image in pixels.
        channels: of the image.
    """
    width, height = size
    image = paddle.zeros([1, channels, height, width])
    meter = _Meter(model)
    training = model.training
    model.eval()
    try:
        with portable_operators(), meter.attached(model), meter.memory.watching(image):
            model(image)
    finally:
        if training:
            model.train()
    return meter.result()


class _Memory:
    """Bytes of the tensors in use, from the results of Python functions and weak references."""

    def __init__(self, ignored: Iterable[paddle.Tensor]):
        self.ignored = {id(tensor) for tensor in ignored}
        self.alive: dict[int, tuple[weakref.ref, int]] = {}
        self.held = 0
        self.part = Part(OUTSIDE)  # the one that is running

    @contextlib.contextmanager
    def watching(self, image: paddle.Tensor) -> Iterator[None]:
        """Track the tensors of this thread, starting with `image`."""
        self._add(image)
        previous = sys.getprofile()
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(previous)

    def _on_event(self, frame: FrameType, event: str, value: Any) -> None:
        if event != "return":
            return
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, paddle.Tensor):
                self._add(tensor)

    def _add(self, tensor: paddle.Tensor) -> None:
        key = id(tensor)
        if key in self.ignored or key in self.alive:
            return
        size = tensor.size * tensor.element_size()
        self.alive[key] = (weakref.ref(tensor, lambda _: self._remove(key)), size)
        self.held += size
        self.part.peak_bytes = max(self.part.peak_bytes, self.held)

    def _remove(self, key: int) -> None:
        self.held -= self.alive.pop(key)[1]


class _Meter:
    """The layer hooks of a measurement and their counts."""

    def __init__(self, model: nn.Layer):
        self.names = dict(_parts(model))
        self.outside = Part(OUTSIDE)
        self.ran = [self.outside]  # the parts as they ran
        self.counted: set[int] = set()  # ids of parameters
        self.memory = _Memory([*model.parameters(), *model.buffers()])
        self.memory.part = self.outside

    @contextlib.contextmanager
    def attached(self, model: nn.Layer) -> Iterator[None]:
        """Count while the block runs."""
        handles = []
        for layer in model.sublayers(include_self=True):
            if layer in self.names:  # around the layer's own count
                handles.append(layer.register_forward_pre_hook(self._enter))
            handles.append(layer.register_forward_post_hook(self._count))
            if layer in self.names:
                handles.append(layer.register_forward_post_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, layer: nn.Layer, inputs: tuple) -> None:
        self.memory.part = Part(self.names[layer])
        self.ran.append(self.memory.part)

    def _leave(self, layer: nn.Layer, inputs: tuple, output: Any) -> None:
        last = output[-1] if isinstance(output, (list, tuple)) else output
        self.memory.part.output = tuple(last.shape[1:])
        self.memory.part = self.outside

    def _count(self, layer: nn.Layer, inputs: tuple, output: Any) -> None:
        part = self.memory.part
        part.multiply_adds += _multiply_adds(layer, output)
        for parameter in layer.parameters(include_sublayers=False):
            if id(parameter) not in self.counted:
                self.counted.add(id(parameter))
                part.parameters += int(parameter.size)

    def result(self) -> Complexity:
        """The parts, with neighbors of the same size merged, and the rest last."""
        merged: list[Part] = []
        for part in self.ran[1:]:
            if merged and _same_stage(merged[-1], part):
                merged[-1] = _merge(merged[-1], part)
            else:
                merged.append(part)
        parts = [*merged, self.outside]
        total = Part(
            "total",
            parameters=sum(part.parameters for part in parts),
            multiply_adds=sum(part.multiply_adds for part in parts),
            peak_bytes=max(part.peak_bytes for part in parts),
        )
        return Complexity(parts, total)


def _parts(layer: nn.Layer, prefix: str = "", depth: int = 0) -> Iterator[tuple[nn.Layer, str]]:
    for name, child in layer.named_children():
        if isinstance(child, (nn.LayerList, nn.Sequential)):
            yield from ((item, f"{prefix}{name}.{i}") for i, item in child.named_children())
        elif depth or not any(child.children()):
            yield child, f"{prefix}{name}"
        else:
            yield from _parts(child, f"{prefix}{name}.", depth + 1)


def _same_stage(first: Part, second: Part) -> bool:
    (list_a, _, a), (list_b, _, b) = (part.name.rpartition(".") for part in (first, second))
    numbered = b.isdecimal() and a.rpartition("-")[2].isdecimal()
    return numbered and list_a == list_b and first.output[1:] == second.output[1:]


def _merge(first: Part, second: Part) -> Part:
    number = second.name.rpartition(".")[2]
    return Part(
        f"{first.name.partition('-')[0]}-{number}",
        second.output,
        first.parameters + second.parameters,
        first.multiply_adds + second.multiply_adds,
        max(first.peak_bytes, second.peak_bytes),
    )


def _multiply_adds(layer: nn.Layer, output: Any) -> int:
    if isinstance(layer, nn.Conv2D):
        each = math.prod(layer.weight.shape[1:]) + (layer.bias is not None)
    elif isinstance(layer, nn.Linear):
        each = layer.weight.shape[0] + (layer.bias is not None)
    elif isinstance(layer, nn.BatchNorm2D):
        each = 1
    else:
        return 0
    return int(output.size) * int(each)
