from __future__ import annotations

import pickle

import numpy as np
import paddle
import pytest
from paddle import nn

from liteseg.errors import UserError
from liteseg.utils.weights import load as weights


class Head(nn.Layer):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2D(4, 3, 1)
        self.conv_out = nn.Conv2D(3, num_classes, 1, bias_attr=False)


class Encoder(nn.Layer):
    def __init__(self, width=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2D(3, width, 3), nn.BatchNorm2D(width))


class Network(nn.Layer):
    def __init__(self, num_classes=5, width=4):
        super().__init__()
        self.backbone = Encoder(width)
        self.seg_heads = nn.LayerList([Head(num_classes), Head(num_classes)])


def arrays_of(model, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {k: rng.random(v.shape).astype("float32") for k, v in model.state_dict().items()}


@pytest.fixture
def save(tmp_path):
    """A function that writes arrays as paddle.save does and returns the path."""

    def save(arrays):
        path = tmp_path / "model.pdparams"
        path.write_bytes(pickle.dumps(arrays, 4))
        return path

    return save


def state_of(model):
    return {key: tensor.numpy() for key, tensor in model.state_dict().items()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


def load_error(model, path, **options) -> str:
    before = state_of(model)
    with pytest.raises(UserError) as caught:
        weights.load_weights(model, path, **options)
    assert_same(state_of(model), before)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_files_of_paddle_save(tmp_path, protocol):
    model, path = Network(), tmp_path / "m.pdparams"
    paddle.save(model.state_dict(), str(path), protocol=protocol)
    assert_same(weights.read_pdparams(path), state_of(model))


def test_paddle_loads_saved_files(tmp_path):
    model, path = Network(), tmp_path / "new" / "m.pdparams"
    weights.save_pdparams(model.state_dict(), path)
    assert_same(paddle.load(str(path), return_numpy=True), state_of(model))
    assert_same(weights.read_pdparams(path), state_of(model))
    fresh = Network()
    fresh.set_state_dict(paddle.load(str(path)))
    assert_same(state_of(fresh), state_of(model))


def test_bfloat16_is_saved_as_float32(tmp_path):
    tensor = paddle.to_tensor([1.5, -2.0]).astype("bfloat16")
    weights.save_pdparams({"w": tensor}, tmp_path / "w")
    found = weights.read_pdparams(tmp_path / "w")["w"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1.5, -2.0])


def test_training_state_round_trip(tmp_path):
    model = Network()
    optimizer = paddle.optimizer.Momentum(0.1, parameters=model.parameters())
    model.seg_heads[0].conv(paddle.ones([1, 4, 2, 2])).sum().backward()
    optimizer.step()
    state = {
        "step": 7,
        "best": None,
        "optimizer": optimizer.state_dict(),
        "random": np.random.default_rng(3).bit_generator.state,
    }
    weights.write_state(state, tmp_path / "state")
    read = weights.read_state(tmp_path / "state")
    assert (read["step"], read["best"], read["random"]) == (7, None, state["random"])
    tensors = {k: v.numpy() for k, v in state["optimizer"].items() if hasattr(v, "numpy")}
    assert tensors
    assert_same({key: read["optimizer"][key] for key in tensors}, tensors)


def test_reads_nested_state_of_paddle_save(tmp_path):
    paddle.save({"a": {"w": paddle.ones([2])}, "l": [paddle.zeros([1])]}, str(tmp_path / "s"))
    read = weights.read_state(tmp_path / "s")
    np.testing.assert_array_equal(read["a"]["w"], np.ones(2))
    np.testing.assert_array_equal(read["l"][0], np.zeros(1))
    with pytest.raises(UserError, match="'a' is a dict"):
        weights.read_pdparams(tmp_path / "s")


def test_not_arrays_by_name(save):
    with pytest.raises(UserError, match="contains a list"):
        weights.read_pdparams(save([np.ones(2)]))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        weights.load_weights(Network(), tmp_path / "none.pdparams")


def test_loads_all(save):
    model = Network()
    expected = arrays_of(model)
    report = weights.load_weights(model, save(expected))
    assert_same(state_of(model), expected)
    assert (set(report.loaded), report.left_out, report.ignored) == (set(expected), (), ())


def test_half_precision_is_converted(save):
    model = Network()
    half = {key: value.astype("float16") for key, value in arrays_of(model).items()}
    weights.load_weights(model, save(half))
    assert_same(state_of(model), {k: v.astype("float32") for k, v in half.items()})


def test_one_table_of_all_differences(save):
    model = Network()
    arrays = arrays_of(model)
    del arrays["backbone.features.1._mean"]
    arrays["backbone.features.0.weight"] = np.zeros((8, 3, 3, 3), np.float32)
    arrays["seg_heads.0.conv.bias"] = np.zeros(3, np.uint16)
    arrays.update({f"aux.{i}": np.zeros(1, np.float32) for i in range(30)})
    message = load_error(model, save(arrays))
    lines = message.splitlines()
    assert "1 missing from the file, 30 unexpected in the file, 2 of another shape" in lines[0]
    assert any("missing" in x and "backbone.features.1._mean" in x and "[4]" in x for x in lines)
    assert any("[8, 3, 3, 3]" in x and "[4, 3, 3, 3]" in x for x in lines)
    assert any("[3] uint16" in x for x in lines)
    assert "… and 23 more" in message
    assert len(lines) < 25


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan(save, value):
    arrays = arrays_of(Network())
    arrays["backbone.features.1.weight"][2] = value
    message = load_error(Network(), save(arrays))
    assert "NaN or infinity in 1 of" in message
    assert "backbone.features.1.weight" in message


def test_other_num_classes(save):
    path = save(arrays_of(Network(num_classes=19)))
    message = load_error(Network(num_classes=5), path)
    assert "set num_classes to 19" in message
    model = Network(num_classes=5)
    before = state_of(model)
    report = weights.load_weights(model, path, fine_tune=True)
    out = {f"seg_heads.{i}.conv_out.weight" for i in range(2)}
    assert set(report.left_out) == out
    assert all(key in str(report) for key in out)
    expected = {**arrays_of(Network(num_classes=19)), **{key: before[key] for key in out}}
    assert_same(state_of(model), expected)


def test_fine_tuning_tolerates_no_other_difference(save):
    assert "of another shape" in load_error(
        Network(5), save(arrays_of(Network(19, width=6))), fine_tune=True
    )
    arrays = arrays_of(Network(19))
    del arrays["seg_heads.0.conv.bias"]
    assert "1 missing" in load_error(Network(5), save(arrays), fine_tune=True)


def test_imagenet_encoder(save):
    model = Encoder()
    arrays = arrays_of(model)
    imagenet = {"conv_last.conv.weight": (8, 4, 1, 1), "fc.weight": (8, 8), "linear.weight": (8, 9)}
    extras = {key: np.zeros(shape, np.float32) for key, shape in imagenet.items()}
    report = weights.load_weights(model, save({**arrays, **extras}))
    assert_same(state_of(model), arrays)
    assert set(report.ignored) == set(extras)
    assert "fc.weight" in str(report)


def test_encoder_and_network_confused(save):
    assert "model.backbone.pretrained" in load_error(Network(), save(arrays_of(Encoder())))
    assert "give them as model.pretrained" in load_error(Encoder(), save(arrays_of(Network())))


def test_not_strict_loads_matching_keys(save):
    model = Network()
    arrays = arrays_of(model)
    del arrays["seg_heads.1.conv.bias"]
    report = weights.load_weights(
        model, save({**arrays, "x": np.ones(1, np.float32)}), strict=False
    )
    assert report.left_out == ("seg_heads.1.conv.bias",)
    assert report.ignored == ("x",)
    assert "does not fit" in load_error(Network(), save({"x": np.ones(1)}), strict=False)


def test_the_report_names_the_layers_of_each_source(save):
    path = save(arrays_of(Network(num_classes=7)))
    report = weights.load_weights(Network(num_classes=5), path, fine_tune=True)
    assert str(report) == (
        f"weights: 10 arrays from {path}: backbone, seg_heads.0.conv, seg_heads.1.conv; left as "
        "initialized (2): seg_heads.0.conv_out.weight, seg_heads.1.conv_out.weight"
    )
    encoder = {f"backbone.{key}": value for key, value in arrays_of(Encoder()).items()}
    report = weights.load_weights(Network(), save(encoder), strict=False)
    assert f"6 arrays from {path}: backbone; left as initialized (6): seg_heads." in str(report)
    assert str(weights.load_weights(Network(), save(arrays_of(Network())))) == (
        f"weights: 12 arrays from {path}"
    )
