"""oneDNN kernels in eager mode: convolution, average pooling and softmax on a CPU.

Paddle's eager convolution unfolds one image after the other into a matrix. oneDNN, which every CPU
wheel contains, takes about half as long for the output and the gradients, but Paddle calls it
from graphs only. So each operator becomes a graph of its own; results differ by rounding. One graph
of the whole network is impossible: with oneDNN, Paddle 3.3's batch norm crashes in training and its
bilinear interpolation raises.

Layers of the same shape share a graph: Paddle gives each forward pass a scope of its own until its
backward pass has run, and it never frees a graph.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import paddle
import paddle.nn.functional as F
from paddle.static import InputSpec

from liteseg.ops import device, exclusive
from liteseg.ops.onednn_cache import drop_copies

_FLAG = "FLAGS_use_mkldnn"
_last_shape: dict[Callable, list[int]] = {}


@functools.cache
def available() -> bool:
    """Whether this Paddle can call oneDNN one operator at a time: as of Paddle 3.2."""
    major, minor = (int(part) for part in paddle.__version__.split(".")[:2])
    if (major, minor) < (3, 2):
        return False
    core = paddle.base.core
    compiled = getattr(core, "is_compiled_with_onednn", None) or core.is_compiled_with_mkldnn
    return bool(compiled())


def supports(x: paddle.Tensor) -> bool:
    """Whether the functions below accept `x`: eager, float32, NCHW, on a CPU with oneDNN.

    In threads that may end before the process, Paddle's own operators are used; see `exclusive`.
    """
    return device.is_eager_cpu(x) and x.ndim == 4 and available() and exclusive.lasts()


def conv2d(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: Optional[paddle.Tensor],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> paddle.Tensor:
    """`F.conv2d` with the same arguments: (N, in, H, W) -> (N, out, H', W')."""
    geometry = (_hashable(stride), _hashable(padding), _hashable(dilation), groups)
    shape = tuple(weight.shape)
    graph = _conv_graph(shape, bias is not None, *geometry, _needs_gradient(x))
    return _run(graph, x, *([weight] if bias is None else [weight, bias]))


def softmax(x: paddle.Tensor) -> paddle.Tensor:
    """Softmax over the channels of (N, C, H, W), without gradient."""
    with paddle.no_grad():
        return _run(_softmax_graph(), x.detach())


def halving_average_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Mean over 3x3 with stride 2 and padding 1, padding excluded: (N, C, H, W)."""
    return _run(_pool_graph(_needs_gradient(x)), x)


def _needs_gradient(x: paddle.Tensor) -> bool:
    """Whether the gradient of `x` is needed; graphs without it compute and keep less."""
    return paddle.is_grad_enabled() and not x.stop_gradient


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


def _run(graph: Callable, x: paddle.Tensor, *parameters: paddle.Tensor) -> paddle.Tensor:
    """The output of a graph, without the memory that it need not keep."""
    if paddle.is_grad_enabled() or _last_shape.get(graph) != x.shape:
        drop_copies()
        _last_shape[graph] = x.shape
    y = graph(x, *parameters)
    if not paddle.is_grad_enabled():
        return y.detach()  # a graph keeps what its gradient needs in any case
    if not y.stop_gradient:
        y.register_hook(lambda gradient: drop_copies())
    return y


@functools.cache
def _conv_graph(
    shape: tuple[int, ...],
    has_bias: bool,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    with_gradient: bool,
) -> Callable:
    """(x, weight[, bias]) -> output as a graph for inputs of any size."""

    def convolve(x, weight, bias=None):
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return paddle.assign(y)  # converts oneDNN's blocked layout back to NCHW

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
    any_size = [None, x.shape[1] if parameters else None, None, None]
    graph = paddle.jit.to_static(
        function,
        full_graph=True,
        input_spec=[
            InputSpec(any_size, stop_gradient=x.stop_gradient),
            *(InputSpec(p.shape, stop_gradient=p.stop_gradient) for p in parameters),
        ],
    )
    # Paddle selects the kernels when a graph first runs, in each direction. The flag is set for
    # that moment only, because other graphs of this process may contain layers that fail with it.
    with _onednn_enabled(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Paddle's own recording
        with paddle.enable_grad():
            y = graph(x, *parameters)
            if not y.stop_gradient:
                y.sum().backward()
        with paddle.no_grad():
            graph(x, *parameters)
    return graph


@contextlib.contextmanager
def _onednn_enabled() -> Iterator[None]:
    before = paddle.get_flags(_FLAG)
    paddle.set_flags({_FLAG: True})
    try:
        yield
    finally:
        paddle.set_flags(before)
