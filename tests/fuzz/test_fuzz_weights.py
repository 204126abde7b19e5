"""Weights, sound, spoiled and hostile: loaded as they are, or refused with the model unchanged."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from functools import lru_cache

import numpy as np
import paddle
import pytest
from fuzzing import MUTATIONS, ROUNDS, ends_well, numbered, rng_of

from liteseg.utils.weights.load import load_weights, read_state, save_pdparams, write_state

SHAPES = {"weight": (6, 5), "bias": (5,)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def layer():
    one = paddle.nn.Linear(6, 5)
    for value in one.state_dict().values():
        value.set_value(paddle.full(value.shape, 7.0))
    return one


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in SHAPES.items()}


def archived(kind, members):
    """An archive of (name, content) pairs."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@lru_cache
def sound(kind):
    """The bytes of a weights file; what is in it is `arrays()`."""
    if kind.startswith("protocol"):
        return pickle.dumps(arrays(), protocol=int(kind[-1]))
    if kind in ("zip", "tar", "tar.gz"):
        return archived(kind, [("weights/model.pdparams", sound("protocol4"))])
    if kind == "paddle":
        tensors = {key: paddle.to_tensor(value) for key, value in arrays().items()}
        buffer = io.BytesIO()
        paddle.save(tensors, buffer)
        return buffer.getvalue()
    raise ValueError(kind)


KINDS = ("protocol2", "protocol3", "protocol4", "protocol5", "paddle", "zip", "tar", "tar.gz")


def suffix(kind):
    return kind if kind in ("zip", "tar", "tar.gz") else "pdparams"


def loaded(layer, path):
    """Load; True if it did. A refusal must leave the layer as it was."""
    report = ends_well(lambda: load_weights(layer, path))
    values = {key: value.numpy() for key, value in layer.state_dict().items()}
    if report is None:
        assert all((value == 7).all() for value in values.values())
        return False
    assert all(np.isfinite(value).all() for value in values.values())
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_sound_weights(kind, layer, tmp_path):
    path = tmp_path / f"model.{suffix(kind)}"
    path.write_bytes(sound(kind))
    assert loaded(layer, path)
    for key, expected in arrays().items():
        np.testing.assert_array_equal(layer.state_dict()[key].numpy(), expected)


SPOILED = numbered([f"{kind}-{mutation}" for kind in KINDS for mutation in MUTATIONS], 8)


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_weights(name, layer, tmp_path):
    kind, mutation, _ = name.split("-")
    path = tmp_path / f"model.{suffix(kind)}"
    path.write_bytes(MUTATIONS[mutation](sound(kind), rng_of(name)))
    loaded(layer, path)


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


ATTACKS = {
    "system": Call(os.system, "touch executed"),
    "eval": Call(eval, "open('executed', 'w')"),
    "exec": Call(exec, "open('executed', 'w')"),
    "open": Call(open, "executed", "w"),
    "mkdir": Call(os.mkdir, "executed"),
    "import": Call(__import__, "antigravity"),
    "getattr": Call(getattr, "text", "upper"),
    "numpy_load": Call(np.load, "executed"),
    "numpy_save": Call(np.save, "executed", 0),
    "numpy_memmap": Call(np.memmap, "executed", "uint8", "w+", 0, (8,)),
    "numpy_zeros": Call(np.zeros, (1 << 40,)),
    "numpy_object": Call(np.ndarray, (2,), np.dtype(object)),
    "bytes": Call(bytes, 1 << 40),
    "bytearray": Call(bytearray, 1 << 40),
    "paddle": Call(paddle.zeros, [1 << 30]),
}
PLACES = {
    "whole": lambda call: call,
    "value": lambda call: {**arrays(), "weight": call},
    "key": lambda call: {**arrays(), ("a", call): 1},
    "extra": lambda call: {**arrays(), "StructuredToParameterName@@": call},
    "nested": lambda call: {**arrays(), "extra": [{"a": (call,)}]},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_pickles_with_code(attack, place, layer, tmp_path):
    path = tmp_path / "model.pdparams"
    content = PLACES[place](ATTACKS[attack])
    path.write_bytes(pickle.dumps(content, protocol=2 + len(attack + place) % 4))
    assert not loaded(layer, path)
    assert not (tmp_path / "executed").exists()
    assert ends_well(lambda: read_state(path)) is None


OPCODES = {
    "global": b"cos\nsystem\n(S'touch executed'\ntR.",
    "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
    "inst": b"(S'touch executed'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'touch executed'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02U\x01aQ.",
    "memo": b"\x80\x04r\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "long_text": b"I" + b"9" * 100_000 + b"\n.",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep_tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "itself": b"\x80\x02]q\x00h\x00a.",
    "doubling": b"\x80\x02]q\x00" + b"".join(b"h%c]q%c(h%ch%ce0" % (i, i + 1, i, i)
                                              for i in range(60)) + b"h\x3c.",
    "no_stop": b"\x80\x02}",
    "only_stop": b".",
    "no_protocol": b"\x80\xff.",
    "build": b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00f4tR}X\x01\x00\x00\x00aK\x01sb.",
    "dtype_of_objects": b"\x80\x02cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.",
}  # fmt: skip


@pytest.mark.parametrize("name", OPCODES)
def test_odd_pickles(name, layer, tmp_path):
    path = tmp_path / "model.pdparams"
    path.write_bytes(OPCODES[name])
    assert not loaded(layer, path)
    ends_well(lambda: read_state(path))
    assert not (tmp_path / "executed").exists()


def wrong(rng):
    """Named arrays, one of which is not as it should be."""
    state = arrays()
    key = str(rng.choice(list(SHAPES)))
    values = [
        state[key][..., :-1], state[key][None], np.float32(1), np.zeros(0, np.float32),
        state[key].astype(np.float64), state[key].astype(np.float16), state[key].astype(int),
        np.full_like(state[key], np.nan), np.full_like(state[key], np.inf), state[key].tolist(),
        np.full_like(state[key], 1e38), None, "text", {}, state[key] > 0, state[key].T,
        np.asfortranarray(state[key]), state[key].astype(">f4"), state[key].astype(np.uint16),
    ]  # fmt: skip
    what = rng.integers(0, len(values) + 4)
    if what < len(values):
        state[key] = values[what]
    elif what == len(values):
        del state[key]
    elif what == len(values) + 1:
        state[f"{key}_2"] = state[key]
    elif what == len(values) + 2:
        state = {f"model.{name}": value for name, value in state.items()}
    else:
        state = list(state.values())
    return state


WRONG = numbered(["content"], 100)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_content(name, layer, tmp_path):
    state = wrong(rng_of(name))
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(state, protocol=4))
    if loaded(layer, path):
        for key, value in layer.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), state[key].astype(np.float32))


HOSTILE_ARCHIVES = {
    "empty": (),
    "no_weights": (("readme.txt", b"hello"),),
    "two": (("a/x.pdparams", b"1"), ("b/y.pdparams", b"2")),
    "parent": (("../../executed", b"x"), ("model.pdparams", b"x")),
    "absolute": (("/executed", b"x"), ("model.pdparams", b"x")),
    "backslash": (("..\\executed", b"x"), ("model.pdparams", b"x")),
    "not_weights": (("model.pdparams", b"<html>"),),
    "bomb": (("model.pdparams", bytes(70 << 20)),),
    "bomb_beside": (("other", bytes(70 << 20)), ("model.pdparams", b"x")),
    "long_name": (("x" * 5000 + "/model.pdparams", b"x"),),
}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
def test_hostile_archives(name, kind, layer, tmp_path):
    path = tmp_path / f"model.{kind}"
    path.write_bytes(archived(kind, HOSTILE_ARCHIVES[name]))
    assert not loaded(layer, path)
    assert not list(tmp_path.rglob("executed"))


def test_archives_in_archives(layer, tmp_path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(gzip.compress(sound("tar.gz")))
    assert not loaded(layer, path)


STATES = numbered(MUTATIONS, 10)


@pytest.mark.parametrize("name", STATES)
def test_spoiled_training_state(name, tmp_path):
    path = tmp_path / "state"
    write_state({"step": 3, "best": 0.5, "rng": [1, 2], "model": arrays(), "none": None}, path)
    path.write_bytes(MUTATIONS[name.partition("-")[0]](path.read_bytes(), rng_of(name)))
    ends_well(lambda: read_state(path), str(path))


def test_what_is_saved_is_loaded(layer, tmp_path):
    save_pdparams(arrays(), tmp_path / "saved.pdparams")
    assert loaded(layer, tmp_path / "saved.pdparams")


def test_how_many_there_are():
    counts = [len(names) // ROUNDS for names in (SPOILED, WRONG, STATES)]
    assert counts == [384, 100, 60]
