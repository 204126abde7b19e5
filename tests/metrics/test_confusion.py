"""ConfusionMatrix against published metrics and a loop over the pixels."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from liteseg.metrics import ConfusionMatrix, confusion


def golden_pair():
    def label(seed):
        r = np.random.RandomState(seed)
        y = r.randint(0, 6, (3, 1, 50, 70))
        y[r.uniform(size=y.shape) < 0.1] = 255
        return y

    t, p = label(46), label(45)
    u = np.random.RandomState(43).uniform(size=p.shape)
    return np.where(u < 0.6, np.where(t == 255, 0, t), np.where(p == 255, 0, p)), t


def twin(pred, label, n, ignore):
    matrix = np.zeros((n, n), np.int64)
    for p, t in zip(pred.ravel().tolist(), label.ravel().tolist()):
        if t != ignore:
            matrix[t, p] += 1
    return matrix


def test_published_metrics(golden):
    expected = json.loads((golden / "metrics.json").read_text())
    matrix = ConfusionMatrix(6)
    pred, label = golden_pair()
    for i in range(3):
        matrix.update(pred[i], label[i])
    found = matrix.compute()
    assert found["images"] == 3
    for key, value in expected.items():
        got = list(found[key].values()) if key.startswith("class_") else found[key]
        np.testing.assert_allclose(got, value, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("ignore", [255, -1, 65535, 0, 6])
@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint16"])
def test_counts_equal_a_loop_over_pixels(ignore, dtype):
    rng = np.random.default_rng(3)
    label = rng.integers(0, 6, (2, 9, 11)).astype(np.int64)
    label[rng.uniform(size=label.shape) < 0.2] = ignore
    pred = rng.integers(0, 6, label.shape).astype(dtype)
    label = label.astype("uint16" if ignore > 255 else "int32")
    matrix = ConfusionMatrix(6, ignore)
    matrix.update(pred, label)
    assert matrix.matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix.matrix, twin(pred, label, 6, ignore))


def test_counts_in_pieces(monkeypatch):
    monkeypatch.setattr(confusion, "_EXACT_PIXELS", 7)
    rng = np.random.default_rng(1)
    pred, label = rng.integers(0, 3, (2, 5, 6), dtype=np.uint8)
    matrix = ConfusionMatrix(3)
    matrix.update(pred, label)
    np.testing.assert_array_equal(matrix.matrix, twin(pred, label, 3, 255))


def test_paddle_tensors_and_views():
    pred, label = golden_pair()
    expected = ConfusionMatrix(6)
    expected.update(pred, label)
    matrix = ConfusionMatrix(6)
    matrix.update(paddle.to_tensor(pred.astype("int32"))[:, 0], paddle.to_tensor(label))
    np.testing.assert_array_equal(matrix.matrix, expected.matrix)
    flipped = ConfusionMatrix(6)
    flipped.update(pred.astype(np.uint8)[..., ::-1], label.astype(np.uint8)[..., ::-1])
    np.testing.assert_array_equal(flipped.matrix, expected.matrix)


def test_absent_classes_are_none_and_not_in_the_means():
    matrix = ConfusionMatrix(4, class_names=["road", "car", "bus", "sky"])
    matrix.update(np.array([[0, 0, 1, 3]]), np.array([[0, 0, 0, 255]]))
    found = matrix.compute()
    assert found["class_iou"] == {"road": 2 / 3, "car": 0.0, "bus": None, "sky": None}
    assert found["class_recall"]["car"] == 0.0
    assert found["miou"] == pytest.approx(1 / 3)
    assert found["mdice"] == pytest.approx((4 / 5 + 0) / 2)
    json.dumps(found, allow_nan=False)


def test_what_divides_by_zero_is_none():
    empty = ConfusionMatrix(2).compute()
    assert empty["miou"] is empty["acc"] is empty["kappa"] is empty["mdice"] is None
    one_class = ConfusionMatrix(2)
    one_class.update(np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert one_class.compute()["miou"] == 1.0
    assert one_class.compute()["kappa"] is None  # agreement by chance is certain


def test_merge():
    pred, label = golden_pair()
    whole, first, second = (ConfusionMatrix(6) for _ in range(3))
    whole.update(pred, label)
    first.update(pred[:1], label[:1])
    second.update(pred[1:], label[1:])
    first.merge(second)
    np.testing.assert_array_equal(first.matrix, whole.matrix)
    assert first.images == whole.images == 3
    with pytest.raises(ValueError, match="5 classes"):
        whole.merge(ConfusionMatrix(5))


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        ([0, 1], [0, 7], r"label holds 7 \(1 pixels\); expected classes 0 to 2 or 255"),
        ([0, 9], [0, 1], r"prediction holds 9 \(1 pixels\); expected classes 0 to 2"),
        ([0, 1], [0, -3], "label holds -3"),
        ([0, 300], [0, 1], "prediction holds 300"),
        ([0, 1, 2], [0, 1], "expected one shape"),
    ],
)
def test_bad_values_are_named(pred, label, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(3).update(np.array(pred), np.array(label))


def test_what_is_predicted_on_ignored_pixels_does_not_matter():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([255, 1]), np.array([255, 1]))
    assert matrix.matrix.sum() == 1


def test_floats_and_class_counts_are_refused():
    with pytest.raises(TypeError, match="float"):
        ConfusionMatrix(3).update(np.zeros(3), np.zeros(3, int))
    with pytest.raises(ValueError, match="num_classes"):
        ConfusionMatrix(256)
    with pytest.raises(ValueError, match="class names"):
        ConfusionMatrix(3, class_names=["a"])


def test_unknown_predictions_are_wrong():
    matrix = ConfusionMatrix(2, unknown=255)
    matrix.update(np.array([0, 255, 255, 1]), np.array([0, 0, 255, 1]))
    found = matrix.compute()
    assert found["acc"] == pytest.approx(2 / 3)
    assert found["class_iou"] == {"0": 0.5, "1": 1.0}
    with pytest.raises(ValueError, match="prediction holds 254"):
        matrix.update(np.array([254]), np.array([0]))
