"""oneDNN in eager mode against Paddle's own operators."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import ROOT
from paddle import nn

from liteseg.ops import onednn, onednn_cache
from liteseg.ops.conv import Conv2D

CONVOLUTIONS = {
    "strided": ((16, 24, 3), {"stride": 2, "padding": 1, "bias_attr": False}),
    "depthwise": ((16, 16, 3), {"stride": 2, "padding": 1, "groups": 16, "bias_attr": False}),
    "biased": ((16, 20, 3), {"padding": 1}),
    "dilated": ((16, 16, 3), {"padding": 2, "dilation": 2}),
    "one side": ((16, 16, 3), {"padding": [0, 1, 2, 3]}),
    # Not faster with oneDNN.
    "of images": ((3, 16, 3), {"stride": 2, "padding": 1, "bias_attr": False}),
    "pointwise": ((16, 16, 1), {"bias_attr": False}),
    "mirrored": ((16, 16, 3), {"padding": 1, "padding_mode": "reflect"}),
}
PLAIN = {"of images", "pointwise", "mirrored"}
needs_onednn = pytest.mark.skipif(not onednn.available(), reason="needs Paddle 3.2")


def twins(name):
    """An `nn.Conv2D` and a `Conv2D` with the same weights."""
    arguments, options = CONVOLUTIONS[name]
    plain, fast = nn.Conv2D(*arguments, **options), Conv2D(*arguments, **options)
    fast.set_state_dict(plain.state_dict())
    return plain, fast


def results(layer, images, with_gradient):
    """Output and gradients, as arrays."""
    x = paddle.to_tensor(images, stop_gradient=not with_gradient)
    y = layer(x)
    (y * paddle.cos(paddle.arange(y.size, dtype="float32")).reshape(y.shape)).sum().backward()
    tensors = [y, *(p.grad for p in layer.parameters()), *([x.grad] if with_gradient else [])]
    arrays = [tensor.numpy().copy() for tensor in tensors]
    layer.clear_gradients()
    return arrays


@pytest.fixture
def calls(monkeypatch):
    """The input shapes of all convolutions that oneDNN computed."""
    shapes, original = [], onednn.conv2d
    monkeypatch.setattr(onednn, "conv2d", lambda x, *a: shapes.append(x.shape) or original(x, *a))
    return shapes


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("with_gradient", [False, True])
def test_output_and_gradients_at_several_sizes(name, with_gradient, calls):
    plain, fast = twins(name)
    for shape in [(2, 17, 24), (3, 9, 8), (1, 17, 24)]:
        images = np.random.default_rng(0).normal(size=(shape[0], plain._in_channels, *shape[1:]))
        images = images.astype("float32")
        expected = results(plain, images, with_gradient)
        for actual, array in zip(results(fast, images, with_gradient), expected):
            np.testing.assert_allclose(actual, array, rtol=1e-4, atol=1e-5 * np.abs(array).max())
    assert len(calls) == (3 if onednn.available() and name not in PLAIN else 0)


def test_layers_of_one_shape_keep_their_own_values(calls):
    """They share a graph. All outputs are alive before the gradients, which come in any order."""
    pairs = [twins("biased") for _ in range(4)]
    rng = np.random.default_rng(5)
    images = [rng.normal(size=(2, 16, 9, 8)).astype("float32") for _ in pairs]
    expected = [results(plain, x, True) for (plain, _), x in zip(pairs, images)]
    inputs = [paddle.to_tensor(x, stop_gradient=False) for x in images]
    outputs = [fast(x) for (_, fast), x in zip(pairs, inputs)]
    with paddle.no_grad():
        kept = [fast(x) for (_, fast), x in zip(pairs, inputs)]
    for i in (2, 0, 3, 1):
        fast, y = pairs[i][1], outputs[i]
        factor = paddle.cos(paddle.arange(y.size, dtype="float32")).reshape(y.shape)
        (y * factor).sum().backward()
        with paddle.no_grad():
            fast(inputs[0][:, :, :5])
        found = [y, fast.weight.grad, fast.bias.grad, inputs[i].grad]
        for actual, array in zip(found, expected[i]):
            np.testing.assert_allclose(actual.numpy(), array, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(kept[i].numpy(), expected[i][0], rtol=1e-4, atol=1e-5)
    assert len(calls) == (12 if onednn.available() else 0)


# Prints how much memory grows over 25 images of different sizes, in MB.
GROWTH = """
import ctypes, os, sys
import liteseg, numpy, paddle
from pathlib import Path
from liteseg.ops.conv import Conv2D

trains, folder = sys.argv[1] == "trains", Path(sys.argv[2])
layer = Conv2D(32, 32, 3, padding=1)
layer(paddle.zeros([1, 32, 20, 20]))
# Runs like an export in Paddle's own format; its copies count in the same thread.
spec = paddle.static.InputSpec([None, 3, None, None], "float32")
paddle.jit.save(paddle.nn.Conv2D(3, 16, 3), str(folder / "other"), input_spec=[spec])
model = max(folder.glob("other.pdmodel"), default=folder / "other.json")
config = paddle.inference.Config(str(model), str(folder / "other.pdiparams"))
config.enable_mkldnn()
predictor = paddle.inference.create_predictor(config)
for size in (8, 9, 10):
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    handle.copy_from_cpu(numpy.zeros((1, 3, size, size), "float32"))
    predictor.run()
sizes = []
for height in range(200, 230):
    x = paddle.zeros([1, 32, height, 400])
    x.stop_gradient = not trains
    with paddle.set_grad_enabled(trains):
        y = layer(x)
    if trains:
        y.sum().backward()
        layer.clear_gradients()
    del x, y
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # only what is in use counts
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
print(sizes[-1] - sizes[4])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc, /proc")
@pytest.mark.parametrize("mode", ["evaluates", "trains"])
def test_memory_does_not_grow_with_every_new_size(mode, tmp_path):
    """Without eviction Paddle keeps 10 MB (40 with gradients) per image: 250 or 1,000."""
    command = [sys.executable, "-c", GROWTH, mode, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 150


@needs_onednn
def test_no_place_for_temporary_files(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(onednn_cache, "_thread_state", threading.local())
    plain, fast = twins("biased")
    images = np.random.default_rng(2).normal(size=(1, 16, 9, 8)).astype("float32")
    for actual, expected in zip(results(fast, images, True), results(plain, images, True)):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    (record,) = caplog.records
    assert "no temporary file" in record.getMessage()


def test_evaluation_between_two_backward_passes():
    plain, fast = twins("biased")
    images = np.random.default_rng(1).normal(size=(2, 16, 12, 10)).astype("float32")
    before = results(fast, images, True)
    with paddle.no_grad():
        output = fast(paddle.to_tensor(images))
    assert output.stop_gradient
    np.testing.assert_allclose(output.numpy(), plain(paddle.to_tensor(images)).numpy(), atol=1e-5)
    for first, second in zip(before, results(fast, images, True)):
        np.testing.assert_array_equal(first, second)


def test_parameter_names_and_hooks_are_those_of_paddle():
    plain, fast = twins("biased")
    assert isinstance(fast, nn.Conv2D)
    assert fast.weight.name.startswith("conv2d_")  # in optimizer states
    assert list(fast.state_dict()) == list(plain.state_dict())
    shapes = []
    fast.register_forward_post_hook(lambda layer, inputs, output: shapes.append(output.shape))
    fast(paddle.ones([1, 16, 4, 4]))
    assert shapes == [[1, 20, 4, 4]]


def test_other_graphs_of_the_process_stay_without_onednn():
    fast = twins("biased")[1]
    fast(paddle.ones([1, 16, 4, 4]))

    class Net(nn.Layer):
        """Contains an operator that raises in a graph with oneDNN (Paddle 3.3)."""

        def __init__(self):
            super().__init__()
            self.conv = fast

        def forward(self, x):
            return F.interpolate(self.conv(x), [8, 8], mode="bilinear")

    net = Net()
    images = paddle.ones([1, 16, 4, 4])
    graph = paddle.jit.to_static(net.forward, full_graph=True)
    np.testing.assert_allclose(graph(images).numpy(), net(images).numpy(), rtol=1e-5, atol=1e-5)


def test_nothing_is_kept_without_gradients():
    """An output that needs a gradient would keep all that its graph saved for it."""
    _, fast = twins("strided")
    images = paddle.ones([1, 16, 8, 8])
    for _ in range(2):
        with paddle.no_grad():
            assert fast(images).stop_gradient
        assert not fast(images).stop_gradient


@needs_onednn
def test_softmax():
    logits = np.random.default_rng(3).normal(size=(2, 5, 7, 9)) * 30
    shares = np.exp(logits - logits.max(1, keepdims=True))
    x = paddle.to_tensor(logits.astype("float32"), stop_gradient=False)
    found = onednn.softmax(x)
    assert found.stop_gradient
    np.testing.assert_allclose(found.numpy(), shares / shares.sum(1, keepdims=True), atol=1e-6)


@needs_onednn
def test_consecutive_pools_keep_their_own_values():
    """They share a graph, and the second one runs before the gradient of the first one."""
    rng = np.random.default_rng(4)
    first = rng.normal(size=(2, 5, 9, 12)).astype("float32")

    def pooled_twice(pool):
        x = paddle.to_tensor(first, stop_gradient=False)
        once = pool(x)
        twice = pool(once * once)
        (twice * paddle.arange(twice.size, dtype="float32").reshape(twice.shape)).sum().backward()
        return [tensor.numpy() for tensor in (once, twice, x.grad)]

    expected = pooled_twice(lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, exclusive=True))
    for actual, array in zip(pooled_twice(onednn.halving_average_pool), expected):
        np.testing.assert_allclose(actual, array, rtol=1e-5, atol=1e-5)
