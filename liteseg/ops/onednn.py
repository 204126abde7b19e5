"""oneDNN's convolutions, average pooling and softmax for training and evaluation on a CPU.

Paddle's eager convolution unfolds one image after the other into a matrix. oneDNN, which every CPU
wheel contains, takes about half as long for the output and for the gradients, but Paddle 3 calls it
from graphs only; so each convolution becomes a graph of its own. Results differ by rounding. One
graph of the whole network can't do it: with oneDNN, Paddle 3.3's batch norm crashes in training and
its bilinear interpolation raises.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.static import InputSpec

from liteseg.utils.logging import get_logger
from liteseg.utils.runtime import operator_threads

_FLAG = "FLAGS_use_mkldnn"


def accelerate_convolutions(model: nn.Layer) -> nn.Layer:
    """Let the `nn.Conv2D` of `model` compute with oneDNN where Paddle has it, in place.

    Layers, parameters and their names stay. On GPU and on Paddle 2 nothing changes, nor where the
    model becomes part of a graph (export).

    Returns:
        `model`.
    """
    if paddle.get_device() == "cpu" and _has_onednn():
        numbers: Counter[tuple] = Counter()
        for layer in model.sublayers(include_self=True):
            if type(layer) is nn.Conv2D and _gains(layer):
                kind = _kind(layer)
                layer.forward = _OneDnnConvolution(layer, kind, numbers[kind])
                numbers[kind] += 1
    return model


def _gains(layer: nn.Conv2D) -> bool:
    """Whether oneDNN is the faster one: for kernels above 1x1 and channels that fill its blocks."""
    plain = layer._padding_mode == "zeros" and max(layer._kernel_size) > 1
    return plain and min(layer._in_channels, layer._out_channels) >= 16


def _kind(layer: nn.Conv2D) -> tuple:
    """What makes two convolutions the same but for their weights: the arguments of `_graph`."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value

    geometry = (layer._stride, layer._padding, layer._dilation, layer._groups)
    return (tuple(layer.weight.shape), layer.bias is not None, *map(frozen, geometry))


def _has_onednn() -> bool:
    """Whether graphs of this Paddle can call it one operator at a time: as of Paddle 3."""
    core = paddle.base.core
    is_paddle_3 = int(paddle.__version__.partition(".")[0]) >= 3
    return is_paddle_3 and getattr(core, "is_compiled_with_onednn", core.is_compiled_with_mkldnn)()


class _OneDnnConvolution:
    """Stands in for `layer.forward`: (N, in, H, W) -> (N, out, H', W').

    `number` counts the layers of one `kind` in a model: between forward and backward pass, each
    needs a graph of its own.
    """

    def __init__(self, layer: nn.Conv2D, kind: tuple, number: int):
        self._layer, self._kind, self._number = layer, kind, number

    def __call__(self, x: paddle.Tensor) -> paddle.Tensor:
        layer = self._layer
        if not paddle.in_dynamic_mode() or x.dtype != paddle.float32:
            return nn.Conv2D.forward(layer, x)
        # An evaluation between training steps has graphs of its own, which keep much less; and the
        # gradient of the images would be computed for nothing.
        with_gradient = paddle.is_grad_enabled() and not x.stop_gradient
        graph = _graph(*self._kind, with_gradient, self._number)
        parameters = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        return _run(graph, x, *parameters)


def takes(x: paddle.Tensor) -> bool:
    """Whether the functions below take `x`: float32 on a CPU, outside of graphs, on Paddle 3."""
    here = paddle.in_dynamic_mode() and x.place.is_cpu_place()
    return here and x.dtype == paddle.float32 and x.ndim == 4 and _has_onednn()


def softmax(x: paddle.Tensor) -> paddle.Tensor:
    """Softmax over the channels of (N, C, H, W), without gradient."""
    with paddle.no_grad():
        return _run(_softmax_graph(), x.detach())


def halving_average_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Mean over 3x3 with stride 2, the padding of 1 left out of it: (N, C, H, W)."""
    return _run(_pool_graph(paddle.is_grad_enabled() and not x.stop_gradient), x)


def _run(graph: Callable, x: paddle.Tensor, *parameters: paddle.Tensor) -> paddle.Tensor:
    """The output of a graph, without what it need not keep."""
    if paddle.is_grad_enabled() or _last_size.get(graph) != x.shape:
        _drop_copies()
        _last_size[graph] = x.shape
    y = graph(x, *parameters)
    if not paddle.is_grad_enabled():
        return y.detach()  # a graph keeps what its gradient needs, asked or not
    if not y.stop_gradient:
        y.register_hook(lambda gradient: _drop_copies())
    return y


_SIZES = 64
_last_size: dict[Callable, list[int]] = {}
_of_thread = threading.local()


def _drop_copies() -> None:
    """Let Paddle forget the copies that it made of tensors in oneDNN's layouts.

    It keeps those of each operator and each size of an input for good: hundreds of MB for a
    training step, and as much again for every other size. A predictor may be told to keep them for
    one size at a time; whatever runs in its thread thereafter is counted under the size that it
    saw last, and goes when it sees another.
    """
    if not hasattr(_of_thread, "predictor"):
        _of_thread.predictor, _of_thread.size = _forgetful_predictor(), 1
        _of_thread.operator_threads = operator_threads()
    predictor = _of_thread.predictor
    if predictor is None:
        return
    # Always another size, not one of two: what other predictors of the process have left stays
    # beside them, and one of few might meet itself again.
    _of_thread.size = _of_thread.size % _SIZES + 1
    given = predictor.get_input_handle(predictor.get_input_names()[0])
    given.copy_from_cpu(np.zeros(_of_thread.size, np.float32))
    predictor.run()
    # It leaves one thread to all operators.
    paddle.base.core.set_num_threads(_of_thread.operator_threads)


def _forgetful_predictor() -> Any:
    """Paddle Inference on a graph of one ReLU, with room for the copies of one input size.

    None where no file can be written for it: then memory grows, and nothing else changes.
    """
    try:
        return _make_forgetful_predictor()
    except (OSError, RuntimeError) as error:
        get_logger().warning(f"more memory than needed will be used: no temporary file: {error}")
        return None


def _make_forgetful_predictor() -> Any:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no variable in your model"
        path = f"{folder}/relu"
        paddle.jit.save(nn.ReLU(), path, input_spec=[InputSpec([None], "float32")])
        config = paddle.inference.Config(f"{path}.json", "")
        config.disable_glog_info()
        config.enable_onednn()
        config.set_onednn_cache_capacity(1)
        config.switch_ir_optim(False)
        return paddle.inference.create_predictor(config)


# For all models of the process: Paddle never frees a graph.
@functools.cache
def _graph(
    shape: tuple,
    has_bias: bool,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    with_gradient: bool,
    number: int,
) -> Callable:
    """(input, weight[, bias]) -> output as a graph for inputs of any size."""

    def convolve(x, weight, bias=None):
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return paddle.assign(y)  # brings oneDNN's blocked layout back to NCHW

    shapes = [list(shape), [shape[0]]] if has_bias else [list(shape)]
    channels = shape[1] * groups
    side = 2 * max(dilation) * max(shape[2:])
    parameters = [paddle.ones(size) for size in shapes]
    for parameter in parameters:
        parameter.stop_gradient = False
    return _record(convolve, paddle.ones([1, channels, side, side]), with_gradient, parameters)


@functools.cache
def _softmax_graph() -> Callable:
    def softmax_of(x):
        return paddle.assign(F.softmax(x, axis=1))

    return _record(softmax_of, paddle.ones([1, 2, 2, 2]), with_gradient=False)


@functools.cache
def _pool_graph(with_gradient: bool) -> Callable:
    def pool(x):
        return paddle.assign(F.avg_pool2d(x, 3, stride=2, padding=1, exclusive=True))

    return _record(pool, paddle.ones([1, 16, 8, 8]), with_gradient)


def _record(
    function: Callable,
    x: paddle.Tensor,
    with_gradient: bool,
    parameters: Sequence[paddle.Tensor] = (),
) -> Callable:
    """`function` of an image like `x`, but of any size, and of `parameters`, as a graph."""
    x.stop_gradient = not with_gradient
    anything = [None, x.shape[1] if parameters else None, None, None]
    graph = paddle.jit.to_static(
        function,
        full_graph=True,
        input_spec=[
            InputSpec(anything, stop_gradient=x.stop_gradient),
            *(InputSpec(p.shape, stop_gradient=p.stop_gradient) for p in parameters),
        ],
    )
    # Kernels are chosen when a graph first runs, in each direction; the flag is for that moment
    # only, as other graphs of this process may hold layers that fail with it.
    with _onednn_on(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Paddle's own, about its own recording
        with paddle.enable_grad():
            y = graph(x, *parameters)
            if not y.stop_gradient:
                y.sum().backward()
        with paddle.no_grad():
            graph(x, *parameters)
    return graph


@contextlib.contextmanager
def _onednn_on() -> Iterator[None]:
    before = paddle.get_flags(_FLAG)
    paddle.set_flags({_FLAG: True})
    try:
        yield
    finally:
        paddle.set_flags(before)
