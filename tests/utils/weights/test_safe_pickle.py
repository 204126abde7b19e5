from __future__ import annotations

import collections
import gc
import os
import pickle
import struct
import time
import tracemalloc

import numpy as np
import pytest

from liteseg.errors import UserError
from liteseg.utils.weights import safe_pickle

ARRAYS = {
    "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
    "big_endian": np.arange(4, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "bool": np.array([True, False]),
    "int64": np.array(7),
    "empty": np.zeros((0, 5), np.float16),
}


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def failure(data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        safe_pickle.loads(data, "w.pdparams")
    assert "w.pdparams" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_and_containers_survive_every_protocol(protocol):
    state = {
        **ARRAYS,
        "scalar": np.float32(2.5),
        "nested": [1, -(2**100), 2.5, "ü", None, True, b"\x00\xff", (3, {"k": [np.ones(2)]})],
        "ordered": collections.OrderedDict(a=1),
    }
    read = safe_pickle.loads(pickle.dumps(state, protocol), "x")
    assert list(read) == list(state)
    for key, array in ARRAYS.items():
        assert type(read[key]) is np.ndarray
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == array.dtype.newbyteorder("=")
        assert read[key].flags.writeable
    assert read["scalar"] == np.float32(2.5)
    assert read["scalar"].dtype == np.float32
    assert read["nested"][:-1] == state["nested"][:-1]
    np.testing.assert_array_equal(read["nested"][-1][1]["k"][0], np.ones(2))
    assert read["ordered"] == {"a": 1}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_memory_is_freed(protocol):
    """Python 3.9 and 3.10 do not free cycles through the memo of an unpickler."""
    array = np.zeros(1_000_000, np.uint8)
    data = pickle.dumps({"w": array}, protocol)
    tracemalloc.start()
    try:
        for _ in range(3):
            safe_pickle.loads(data, "x")
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < array.nbytes
    finally:
        tracemalloc.stop()


def test_shared_parts_are_visited_once_and_loops_are_rejected():
    layer = [1]
    for _ in range(60):  # 2**60 leaves if each were visited
        layer = [layer, layer]
    assert len(safe_pickle.loads(pickle.dumps(layer, 4), "x")) == 2
    loop: list = []
    loop.append(loop)
    assert "contains itself" in failure(pickle.dumps(loop, 4))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.getcwd), f"{os.name}.getcwd"),
        (Call(eval, "1 + 1"), "builtins.eval"),
        (Call(getattr, "x", "upper"), "builtins.getattr"),
        (Call(np.load, "x"), "numpy.load"),
        (Call(bytearray, 10**12), "builtins.bytearray"),
    ],
)
def test_other_calls_are_rejected_by_name(call, name):
    for protocol in (2, 4):
        message = failure(pickle.dumps({"weight": call}, protocol))
        assert "rejected" in message
        assert name in message.replace("__builtin__", "builtins")


def test_a_malicious_pickle_leaves_no_trace(tmp_path):
    trace = tmp_path / "trace"
    failure(pickle.dumps(Call(os.mkdir, str(trace))))
    assert not trace.exists()


def test_dotted_names_do_not_bypass_the_list():
    data = b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."
    assert "numpy.ndarray.__class__" in failure(data)


@pytest.mark.parametrize("cut", [0, 1, 30, 100, -1])
def test_truncated(cut):
    data = pickle.dumps(ARRAYS, 4)[:cut]
    assert ("empty" if cut == 0 else "truncated") in failure(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n  <html>", "web page"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"just some text", "not a pickle"),
        (bytes(range(256)), "not a pickle"),
    ],
)
def test_other_formats_are_named(data, problem):
    assert problem in failure(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # BINBYTES8
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.",  # BINUNICODE8
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",  # BYTEARRAY8
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",  # LONG4
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # FRAME
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",  # LONG_BINPUT
        b"\x80\x02Np999999999999\n.",  # PUT
    ],
)
def test_declared_sizes_are_checked_before_allocation(data):
    failure(data)


def nested_keys(depth: int = 30) -> bytes:
    """A dict whose key is a tuple of tuples: to hash it takes 2**depth steps."""
    doubled = (b"q%ch%c\x86" % (n, n) for n in range(1, depth))
    return b"\x80\x04})" + b"".join(doubled) + b"Ns."


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (nested_keys(), "keys"),
        (b"\x80\x04" + b"}" * 2_000_000 + b".", "instructions"),
        (b"\x80\x04" + b"(" * 2_000_000 + b"t.", "instructions"),
        (b"\x80\x04I" + b"9" * 2_000_000 + b"\n.", "INT"),
        (b"\x80\x04L" + b"9" * 1_000_000 + b"L\n.", "LONG"),
        (b"\x80\x04Nb.", ""),
        (b"\x80\x04]Nb.", "state"),
        (b"\x80\x04}(]K\x01u.", "keys"),
        (b"\x80\x04(lNa.", "LIST"),
        (b"\x80\x04NQ.", "BINPERSID"),
        (b"\x80\x04\x82\x01.", "EXT1"),
        (b"\x80\x04u.", ""),
    ],
)
def test_instructions_that_no_weights_contain_are_refused_at_once(data, problem):
    """Nested keys would take for ever, and 2 MB of empty dicts 478 MiB."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        assert problem in failure(data)
        assert tracemalloc.get_traced_memory()[1] < 150 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20


def pickle_with_shape(shape) -> bytes:
    """A pickle of a (2, 3) array that declares another shape."""
    kind, arguments, state = np.ones((2, 3), np.float32).__reduce__()

    class Forged:
        def __reduce__(self):
            return kind, arguments, (state[0], shape, *state[2:])

    return pickle.dumps(Forged(), 4)


@pytest.mark.parametrize(
    "shape", [(10**6, 10**6), (-2, -3), (2, 4), ("x" * 99, 10**9), (2.0, 3.0), (1,) * 40 + (6,)]
)
def test_shape_must_match_the_number_of_bytes(shape):
    assert "shape" in failure(pickle_with_shape(shape))


def test_the_same_bytes_cannot_be_unpacked_many_times():
    shared = np.ones(1 << 16, np.float32).__reduce__()

    class Copy:
        def __reduce__(self):
            return shared

    assert "far more" in failure(pickle.dumps([Copy() for _ in range(1000)], 4))


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, []], dtype=object),
        np.zeros(2, [("x", "f4")]),
        np.array(["text"]),
        np.zeros(1, "M8[s]"),
    ],
)
def test_non_numeric_arrays_are_rejected(array):
    failure(pickle.dumps(array, 4))


def test_allowed_functions_accept_only_the_arguments_of_numpy_and_paddle():
    for call in (Call(tuple, b"\x00" * 100), Call(tuple, ("name", "text")), Call(np.ndarray, (9,))):
        failure(pickle.dumps(call, 4))
    failure(pickle.dumps(Call(np.dtype, "V1000000000")))


def test_portable_rejects_objects():
    with pytest.raises(TypeError, match="object"):
        safe_pickle.portable({"a": [object()]})
    with pytest.raises(TypeError, match="keys"):
        safe_pickle.portable({(1, 2): 3})
