"""Counting parameters, multiply-adds and held memory, on networks small enough for a pencil."""

from __future__ import annotations

import sys

import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from liteseg.models import STDC1, STDC2, PPLiteSeg
from liteseg.tasks.benchmark.complexity import OUTSIDE, measure

SMALL = {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}
PIXEL = 8 * 6 * 4  # bytes of one channel of the toy's 8x6 image


class Toy(nn.Layer):
    """Two convolutions in a list, a branch for training only, a classifier."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4)),
            nn.Conv2D(4, 2, 1, bias_attr=False),
            nn.Conv2D(2, 6, 3, stride=2, padding=1, groups=2, bias_attr=False),
        )
        self.auxiliary = nn.Conv2D(6, 9, 1)
        self.classify = nn.Linear(6, 5)
        self.register_buffer("unused", paddle.ones([7]))

    def forward(self, x):
        x = self.blocks(x)
        if self.training:
            self.auxiliary(x)
        scores = self.classify(x.mean([2, 3]))
        return F.softmax(scores, axis=1)


class Holding(nn.Layer):
    """Holds the input and two copies; `dropping` lets go of them before the large result."""

    def __init__(self, dropping):
        super().__init__()
        self.dropping = dropping
        self.act = nn.ReLU()

    def forward(self, x):
        first = self.act(x)
        second = F.relu(first)
        if self.dropping:
            del first
        return paddle.concat([second] * 10, axis=1)


@pytest.fixture(scope="module")
def toy():
    return measure(Toy(), (8, 6))


def test_parts_in_order(toy):
    # The first two of the list make outputs of the same size.
    names = ["blocks.0-1", "blocks.2", "classify", OUTSIDE]
    assert [part.name for part in toy.parts] == names
    assert [part.output for part in toy.parts] == [(2, 6, 8), (6, 3, 4), (5,), ()]


def test_parameters_of_what_runs(toy):
    first = 3 * 4 * 9 + 4 + 4 * 4 + 4 * 2  # batch norm: weight, bias, mean, variance
    assert [part.parameters for part in toy.parts] == [first, 6 * 9, 6 * 5 + 5, 0]
    assert toy.total.parameters == first + 6 * 9 + 6 * 5 + 5


def test_multiply_adds(toy):
    first = 48 * 4 * (3 * 9 + 1) + 48 * 4 + 48 * 2 * 4
    assert [part.multiply_adds for part in toy.parts] == [first, 12 * 6 * 9, 5 * 7, 0]
    assert toy.total.multiply_adds == first + 12 * 6 * 9 + 5 * 7


def test_held_memory(toy):
    # At the batch norm: the image, the convolution's output and its own.
    assert toy.parts[0].peak_bytes == (3 + 4 + 4) * PIXEL
    # The list hands its output on: only the image, its input and its output are held.
    assert toy.parts[1].peak_bytes == (3 + 2) * PIXEL + 6 * PIXEL // 4
    # Image, feature, its means and the scores.
    assert toy.parts[2].peak_bytes == 3 * PIXEL + 6 * PIXEL // 4 + 4 * (6 + 5)
    assert toy.total.peak_bytes == (3 + 4 + 4) * PIXEL


@pytest.mark.parametrize(("dropping", "copies"), [(False, 3), (True, 2)])
def test_what_a_function_lets_go_of_is_not_held(dropping, copies):
    assert measure(Holding(dropping), (8, 6)).total.peak_bytes == (copies + 10) * 3 * PIXEL


def test_a_shared_layer_counts_once_and_computes_twice():
    layer = nn.Linear(4, 4, bias_attr=False)

    class Twice(nn.Layer):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(self.layer(x))

    found = measure(Twice(), (4, 1)).total
    assert (found.parameters, found.multiply_adds) == (16, 2 * 3 * 16)


def test_the_model_is_as_before():
    model = PPLiteSeg(3, STDC1(), **SMALL)
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    profile = sys.getprofile()
    first = measure(model, (64, 32))
    assert first == measure(model, (64, 32))
    assert model.training
    assert sys.getprofile() is profile
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all((before[key] == after[key].numpy()).all() for key in before)
    assert not any(layer._forward_post_hooks for layer in model.sublayers(include_self=True))


@pytest.mark.parametrize(("name", "millions"), [("T", 8.04), ("B", 12.25)])
def test_totals_are_those_published_and_of_paddle_flops(name, millions):
    width, height = 96, 64
    model = PPLiteSeg(19, STDC1(), **SMALL) if name == "T" else PPLiteSeg(19, STDC2())
    total = measure(model, (width, height)).total
    assert round(total.parameters / 1e6, 2) == millions

    def one_a_value(layer, inputs, output):  # as Paddle's own counters, which have two
        layer.total_ops += output.numel()

    counters = {nn.BatchNorm2D: one_a_value}
    counters.update(dict.fromkeys((nn.ReLU, nn.AdaptiveAvgPool2D), lambda *_: None))
    model.eval()  # and of no use afterwards: `paddle.flops` leaves its counters in it
    assert paddle.flops(model, [1, 3, height, width], custom_ops=counters) == total.multiply_adds
