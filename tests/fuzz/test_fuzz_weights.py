"""Weights, sound, damaged and hostile: loaded as they are, or refused with the model unchanged."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from functools import cache

import numpy as np
import paddle
import pytest
from fuzzing import damaged, examples, result_or_error
from hypothesis import given
from hypothesis import strategies as st

from liteseg.utils.weights.load import load_weights, read_state, write_state

RNG = np.random.default_rng(0)
ARRAYS = {k: RNG.normal(size=s).astype(np.float32) for k, s in (("weight", (6, 5)), ("bias", 5))}
ARCHIVES = ("zip", "tar", "tar.gz")
KINDS = ("protocol2", "protocol3", "protocol4", "protocol5", "paddle", *ARCHIVES)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def archived(kind, members):
    """An archive of {name: content}."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0) if kind == "tar.gz" else buffer.getvalue()


@cache
def sound(kind):
    """The bytes of a file that holds ARRAYS."""
    if kind.startswith("protocol"):
        return pickle.dumps(ARRAYS, protocol=int(kind[-1]))
    if kind in ARCHIVES:
        return archived(kind, {"weights/model.pdparams": sound("protocol4")})
    buffer = io.BytesIO()
    paddle.save({key: paddle.to_tensor(value) for key, value in ARRAYS.items()}, buffer)
    return buffer.getvalue()


def loaded(content, kind="pdparams"):
    """The values of a layer after loading; None if the file is refused, with the layer unchanged.

    No file may be executed, or unpacked into the current folder.
    """
    layer = paddle.nn.Linear(6, 5)
    for value in layer.state_dict().values():
        value.set_value(paddle.full(value.shape, 7.0))
    path = f"model.{kind if kind in ARCHIVES else 'pdparams'}"
    with open(path, "wb") as file:
        file.write(content)
    report = result_or_error(load_weights, layer, path)
    assert set(os.listdir()) <= {path, "cache"}
    values = {key: value.numpy() for key, value in layer.state_dict().items()}
    if report is None:
        assert all((value == 7).all() for value in values.values())
        return None
    assert all(np.isfinite(value).all() for value in values.values())
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_sound_weights(kind):
    np.testing.assert_equal(loaded(sound(kind), kind), ARRAYS)


@pytest.mark.parametrize("kind", KINDS)
@examples(48)
@given(st.data())
def test_damaged_weights(kind, data):
    loaded(data.draw(damaged(sound(kind))), kind)


class Call:
    """Is pickled as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


CALLS = [
    Call(os.system, "touch executed"), Call(eval, "open('executed', 'w')"),
    Call(exec, "open('executed', 'w')"), Call(open, "executed", "w"), Call(os.mkdir, "executed"),
    Call(__import__, "antigravity"), Call(getattr, "text", "upper"), Call(np.load, "executed"),
    Call(np.save, "executed", 0), Call(np.memmap, "executed", "uint8", "w+", 0, (8,)),
    Call(np.zeros, (1 << 40,)), Call(np.ndarray, (2,), np.dtype(object)), Call(bytes, 1 << 40),
    Call(bytearray, 1 << 40), Call(paddle.zeros, [1 << 30]),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.function.__name__)
def test_calls_are_refused(call):
    """As the whole pickle, or as a value, key or nested value of it, in every protocol."""
    for content in (
        call,
        {**ARRAYS, "weight": call},
        {**ARRAYS, ("a", call): 1},
        {**ARRAYS, "StructuredToParameterName@@": call},
        {**ARRAYS, "extra": [{"a": (call,)}]},
    ):
        for protocol in range(2, 6):
            assert loaded(pickle.dumps(content, protocol)) is None
            assert result_or_error(read_state, "model.pdparams") is None


ODD_PICKLES = [
    b"cos\nsystem\n(S'touch executed'\ntR.", b"(S'touch executed'\nios\nsystem\n.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
    b"(cos\nsystem\nS'touch executed'\no.", b"\x80\x02\x82\x01.", b"\x80\x02U\x01aQ.",
    b"\x80\x04r\xff\xff\xff\x7f.", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", b"\x80\x02\x8b\xff\xff\xff\x7f.",
    b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", b"I" + b"9" * 100_000 + b"\n.",
    b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", b"\x80\x02)" + b"\x85" * 100_000 + b".",
    b"\x80\x02]q\x00h\x00a.", b"\x80\x02}", b".", b"\x80\xff.",
    b"\x80\x02]q\x00" + b"".join(b"h%c]q%c(h%ch%ce0" % (i, i + 1, i, i) for i in range(60)) + b".",
    b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00f4tR}X\x01\x00\x00\x00aK\x01sb.",
    b"\x80\x02cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.",
]  # fmt: skip


def test_odd_pickles_are_refused():
    for content in ODD_PICKLES:
        assert loaded(content) is None
        result_or_error(read_state, "model.pdparams")
        assert os.listdir() == ["model.pdparams"]


CHANGES = [
    lambda a: a, lambda a: a[..., :-1], lambda a: a[None], lambda a: np.float32(1),
    lambda a: np.zeros(0, np.float32), lambda a: a.astype(np.float64), lambda a: a.astype(">f4"),
    lambda a: a.astype(np.float16), lambda a: a.astype(int), lambda a: a.astype(np.uint16),
    lambda a: a > 0, lambda a: np.full_like(a, np.nan), lambda a: np.full_like(a, np.inf),
    lambda a: np.full_like(a, 1e38), lambda a: a.T, np.asfortranarray, lambda a: a.tolist(),
    lambda a: None, lambda a: "text", lambda a: {},
]  # fmt: skip
STATES = [
    lambda state: state, lambda state: dict(list(state.items())[1:]),
    lambda state: {**state, "weight_2": state["weight"]},
    lambda state: {f"model.{key}": value for key, value in state.items()},
    lambda state: list(state.values()),
]  # fmt: skip


@examples(100)
@given(st.sampled_from(CHANGES), st.sampled_from(CHANGES), st.sampled_from(STATES))
def test_wrong_content(change_weight, change_bias, change_state):
    arrays = {"weight": change_weight(ARRAYS["weight"]), "bias": change_bias(ARRAYS["bias"])}
    state = change_state(arrays)
    values = loaded(pickle.dumps(state, protocol=4))
    if values is not None:
        for key, value in values.items():
            np.testing.assert_array_equal(value, arrays[key].astype(np.float32))


HOSTILE_ARCHIVES = [
    {}, {"readme.txt": b"hello"}, {"a/x.pdparams": b"1", "b/y.pdparams": b"2"},
    {"../../executed": b"x", "model.pdparams": b"x"}, {"/executed": b"x", "model.pdparams": b"x"},
    {"..\\executed": b"x", "model.pdparams": b"x"}, {"model.pdparams": b"<html>"},
    {"model.pdparams": bytes(70 << 20)}, {"other": bytes(70 << 20), "model.pdparams": b"x"},
    {"x" * 5000 + "/model.pdparams": b"x"}, {"model.pdparams": sound("tar.gz")},
]  # fmt: skip


@pytest.mark.parametrize("kind", ARCHIVES)
def test_hostile_archives_are_refused(kind, tmp_path):
    for members in HOSTILE_ARCHIVES:
        assert loaded(archived(kind, members), kind) is None
        assert not list(tmp_path.parent.rglob("executed"))


def test_archive_in_an_archive_is_refused():
    assert loaded(gzip.compress(sound("tar.gz")), "tar.gz") is None


@examples(60)
@given(st.data())
def test_damaged_training_state(tmp_path, data):
    path = tmp_path / "state"
    write_state({"step": 3, "best": 0.5, "rng": [1, 2], "model": ARRAYS, "none": None}, path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    result_or_error(read_state, path, expected=path)
