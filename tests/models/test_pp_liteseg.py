"""PP-LiteSeg against published values, a numpy twin and its own arithmetic."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import numpy_twin as twin
import paddle
import pytest
from golden_rule import fill, image
from paddle import nn

from liteseg.models import STDC1, STDC2, PPLiteSeg
from liteseg.models.pp_liteseg import FUSIONS, SPPM
from liteseg.ops.pooling import channel_max
from liteseg.utils.weights.load import save_pdparams

SMALL = {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}
DECODERS = {
    "T": ((2, 2, 2), (32, 64, 128), (32, 64, 64)),
    "B": ((4, 5, 3), (64, 96, 128), (64,) * 3),
}
OTHER_FUSIONS = [arm for arm in FUSIONS if arm != "UAFM_SpAtten"]


@cache
def network(name="T", num_classes=19, arm_type="UAFM_SpAtten"):
    """Filled, in evaluation mode; one network for all tests that do not change it."""
    if name == "T":
        return evaluating(PPLiteSeg(num_classes, STDC1(), arm_type=arm_type, **SMALL))
    return evaluating(PPLiteSeg(num_classes, STDC2(), arm_type=arm_type))


def evaluating(layer):
    fill(layer).eval()  # `eval` returns nothing on Paddle 2.6
    return layer


def close(actual, expected, tolerance=1e-4):
    """Within `tolerance` of the largest expected value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("file", "of"),
    [("T", ["T"]), ("B", ["B"]), *((f"T_{arm}", ["T", 11, arm]) for arm in OTHER_FUSIONS)],
)
def test_published_keys_and_shapes(file, of, golden):
    published = json.loads((golden / f"state_dict_{file}.json").read_text())
    actual = {key: list(value.shape) for key, value in network(*of).state_dict().items()}
    assert actual == published


@pytest.mark.parametrize(("name", "size"), [("aligned", (96, 160)), ("odd", (101, 157))])
def test_published_logits(name, size, golden):
    model = network("T")
    expected = np.load(golden / "model_T.npz")
    (logits,) = model(image(1, (1, 3, *size)))
    logits = logits.numpy()
    assert logits.shape == (1, 19, *size)
    close(logits[:, :, ::7, ::7], expected[f"eval_{name}_logits_every7"])
    close([logits.mean(), logits.std()], expected[f"eval_{name}_mean_std"])


@pytest.mark.parametrize("arm", OTHER_FUSIONS)
def test_published_logits_of_the_other_fusions(arm, golden):
    model = network("T", 11, arm)
    (logits,) = model(image(61, (1, 3, 64, 96)))
    close(logits.numpy()[:, :, ::5, ::5], np.load(golden / "fusion_T.npz")[arm])


@pytest.mark.parametrize(("name", "size"), [("T", (45, 70)), ("B", (64, 96)), ("B", (51, 33))])
def test_all_heads_equal_the_numpy_twin(name, size):
    model = network(name)
    x = image(7, (1, 3, *size))
    expected = twin.network(twin.state_of(model), x.numpy(), DECODERS[name][0])
    close(model(x)[0].numpy(), expected[0])
    model.training = True  # the heads of training, with batch norm still in evaluation mode
    try:
        actual = model(x)
    finally:
        model.training = False
    assert len(actual) == 3
    for logits, other in zip(actual, expected):
        close(logits.numpy(), other)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 3), (16, 9)])
def test_pyramid_pooling_equals_the_numpy_twin(size):
    layer = evaluating(SPPM(24, 8, [1, 2, 4]))
    x = image(8, (2, 24, *size))
    close(layer(x).numpy(), twin.sppm(twin.state_of(layer), "", x.numpy()))


@pytest.mark.parametrize("arm", FUSIONS)
@pytest.mark.parametrize(("low", "high"), [((8, 12), (4, 6)), ((9, 13), (5, 7))])
def test_every_fusion_equals_the_numpy_twin(arm, low, high):
    layer = evaluating(FUSIONS[arm](6, 8, 5))
    low, high = image(9, (2, 6, *low)), image(10, (2, 8, *high))
    expected = twin.uafm(twin.state_of(layer), "", low.numpy(), high.numpy(), arm)
    assert expected.shape[1] == 5
    close(layer(low, high).numpy(), expected)


def test_alpha_weighs_the_low_feature_as_in_the_published_weights():
    layer = evaluating(FUSIONS["UAFM_SpAtten"](4, 4, 4))
    attention = layer.conv_xy_atten[1]._batch_norm
    attention.bias.set_value(paddle.full([1], 50.0))  # α = 1 everywhere
    attention.weight.set_value(paddle.zeros([1]))
    low, up = image(11, (1, 4, 6, 6)), image(12, (1, 4, 6, 6))
    np.testing.assert_allclose(layer.fuse(low, up).numpy(), low.numpy(), atol=1e-6)


def test_channel_max_and_its_gradient():
    x = image(13, (2, 5, 4, 6))
    x.stop_gradient = False
    channel_max(x).sum().backward()
    values = x.numpy()
    np.testing.assert_array_equal(channel_max(x).numpy(), values.max(1, keepdims=True))
    np.testing.assert_array_equal(x.grad.numpy(), values == values.max(1, keepdims=True))


def convolutions(name, classes):
    """(level, weights, biases, batch-norm channels) of each convolution; it runs at 1/2^level.

    A level of None is a convolution on SPPM's pooled bins; the level comes with their count.
    """
    modules, decoder, inner = DECODERS[name]
    rows = [(1, 3 * 32 * 9, 0, 32), (2, 32 * 64 * 9, 0, 64)]
    cin = 64
    for stage, count, cout in zip((3, 4, 5), modules, (256, 512, 1024)):
        half, quarter, eighth = cout // 2, cout // 4, cout // 8
        for i in range(count):
            # The 1x1 convolution of a halving module still runs at the finer resolution.
            rows.append((stage if i else stage - 1, cin * half, 0, half))
            if i == 0:
                rows.append((stage, 9 * half, 0, half))
            rows.append((stage, 9 * half * quarter, 0, quarter))
            rows.append((stage, 9 * quarter * eighth, 0, eighth))
            rows.append((stage, 9 * eighth * eighth, 0, eighth))
            cin = cout
    for bins in (1, 2, 4):
        rows.append((("bins", bins * bins), 1024 * 128, 128, 128))
    rows.append((5, 128 * 128 * 9, 128, 128))
    high = 128
    for stage, low, out in zip((5, 4, 3), (1024, 512, 256), reversed(decoder)):
        rows.append((stage, low * high * 9, 0, high))
        rows.append((stage, 4 * 2 * 9, 0, 2))
        rows.append((stage, 2 * 1 * 9, 0, 1))
        rows.append((stage, high * out * 9, 0, out))
        high = out
    rows.append((3, decoder[0] * inner[0] * 9, 0, inner[0]))
    rows.append((3, inner[0] * classes, 0, 0))
    return rows


@pytest.mark.parametrize(("name", "millions"), [("T", 8.04), ("B", 12.25)])
def test_published_count_of_evaluated_parameters(name, millions):
    """Published: all but the two training heads and the frozen `_scale`s, batch-norm mean and
    variance included (Paddle holds them as parameters).
    """
    counted = sum(
        weights + biases + 4 * channels for _, weights, biases, channels in convolutions(name, 19)
    )
    state = network(name).state_dict()
    evaluated = [
        value.numpy().size
        for key, value in state.items()
        if not key.startswith(("seg_heads.1.", "seg_heads.2.")) and not key.endswith("_scale")
    ]
    assert sum(evaluated) == counted
    assert round(counted / 1e6, 2) == millions


@pytest.mark.parametrize("name", DECODERS)
def test_multiply_adds_of_the_convolutions(name):
    height, width = 64, 128
    # A network of its own: `paddle.flops` leaves counters in the state dict.
    model = PPLiteSeg(19, STDC1(), **SMALL) if name == "T" else PPLiteSeg(19, STDC2())
    model.eval()
    zero = {kind: lambda *_: None for kind in (nn.BatchNorm2D, nn.ReLU, nn.AdaptiveAvgPool2D)}
    measured = paddle.flops(model, [1, 3, height, width], custom_ops=zero)
    expected = 0
    for level, weights, biases, _ in convolutions(name, 19):
        pixels = level[1] if isinstance(level, tuple) else height * width // 4**level
        expected += pixels * (weights + biases)  # Paddle counts the addition of a bias as one
    assert measured == expected


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 97)])
def test_b_takes_any_size(size):
    model = network("B")
    x = image(14, (2, 3, *size))
    with paddle.no_grad():
        assert [list(y.shape) for y in model(x)] == [[2, 19, *size]]


def test_a_single_value_is_used_for_all_levels():
    model = PPLiteSeg(4, STDC1(), arm_out_chs=[48], seg_head_inter_chs=[24])
    assert [arm.conv_out._conv.weight.shape[0] for arm in model.ppseg_head.arm_list] == [48] * 3
    assert [head.conv._conv.weight.shape[0] for head in model.seg_heads] == [24] * 3
    assert [list(y.shape) for y in model(image(1, (2, 3, 40, 33)))] == [[2, 4, 40, 33]] * 3


def test_fewer_levels():
    model = PPLiteSeg(
        4, STDC1(), backbone_indices=[2, 3], arm_out_chs=[8, 16], seg_head_inter_chs=[8]
    )
    assert [list(y.shape) for y in model(image(1, (2, 3, 40, 33)))] == [[2, 4, 40, 33]] * 2


def test_nearest_upsampling_repeats_the_high_feature():
    layer = evaluating(FUSIONS["UAFM"](4, 3, 3, resize_mode="nearest"))
    found = []
    layer.conv_x.register_forward_post_hook(lambda _, __, out: found.append(out.numpy()))
    layer.conv_out.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].numpy()))
    high = image(2, (1, 3, 2, 3))
    layer(image(1, (1, 4, 4, 6)), high)
    repeated = high.numpy().repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_allclose(found[1], found[0] + repeated, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone_indices": [3, 4, 5]}, r"backbone_indices: \[3, 4, 5\].*5 outputs \(0 to 4\)"),
        ({"arm_type": "UAFM_Sp"}, "arm_type: 'UAFM_Sp' is not one of UAFM, UAFM_SpAtten"),
        ({"resize_mode": "bicubic"}, "resize_mode: 'bicubic' is not one of bilinear, nearest"),
        ({"arm_out_chs": [32, 64]}, r"arm_out_chs: \[32, 64\] has 2 values; expected 3 or 1"),
        ({"seg_head_inter_chs": [1, 2, 3, 4]}, "seg_head_inter_chs: .* has 4 values; expected 3"),
    ],
)
def test_constructor_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        PPLiteSeg(19, network("T").backbone, **{**SMALL, **arguments})


def test_pretrained_with_another_class_count_leaves_the_classifiers_alone(tmp_path):
    source = network("T").state_dict()
    save_pdparams(source, tmp_path / "model.pdparams")
    model = PPLiteSeg(7, STDC1(), pretrained=str(tmp_path / "model.pdparams"), **SMALL)
    loaded = model.state_dict()
    for key, value in source.items():
        if key.startswith("seg_heads.") and ".conv_out." in key:
            assert loaded[key].shape[0] == 7
        else:
            np.testing.assert_array_equal(loaded[key].numpy(), value.numpy())
