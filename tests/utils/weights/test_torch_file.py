"""Files of `torch.save`: what they contain is read, and hostile ones are refused."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from torch_writer import Parameter, View, legacy, state_dict, zipped

from liteseg.errors import UserError
from liteseg.utils.weights.torch_file import read_torch

FORMATS = [zipped, legacy]


def read(tmp_path, data: bytes):
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    return read_torch(path)


def refused(tmp_path, data: bytes) -> str:
    with pytest.raises(UserError) as error:
        read(tmp_path, data)
    assert str(tmp_path / "model.pth") in str(error.value)
    return str(error.value)


def assert_equal(found, expected):
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("code", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 5)])
def test_tensors(tmp_path, write, code, shape):
    array = (np.random.default_rng(0).normal(size=shape) * 50).astype(code)
    assert_equal(read(tmp_path, write({"x": array}))["x"], array)


@pytest.mark.parametrize("write", FORMATS)
def test_a_checkpoint_with_all_that_surrounds_the_weights(tmp_path, write):
    weight = np.arange(6, dtype="f4").reshape(2, 3)
    content = {
        "state_dict": state_dict({"conv.weight": weight, "bn.num_batches_tracked": np.array(7)}),
        "parameter": Parameter(weight + 1),
        "epoch": 3,
        "acc": 0.25,
        "best": np.float64(0.5),
        "name": "stdc",
        "none": None,
        "list": [1, (2, 3), weight],
        "large": 1 << 70,
    }
    found = read(tmp_path, write(content))
    assert_equal(found["state_dict"]["conv.weight"], weight)
    assert found["state_dict"]["bn.num_batches_tracked"] == 7
    assert_equal(found["parameter"], weight + 1)
    assert_equal(found["list"][2], weight)
    for key in ("epoch", "acc", "best", "name", "none", "large"):
        assert found[key] == content[key]


@pytest.mark.parametrize("write", FORMATS)
def test_parts_of_shared_storages(tmp_path, write):
    storage = np.arange(24, dtype="f4")
    transposed = View(storage, 4, (3, 4), (1, 3))
    found = read(tmp_path, write({"all": View(storage, 0, (24,), (1,)), "part": transposed}))
    expected = storage[4:16].reshape(4, 3).T
    assert_equal(found["part"], expected)
    assert found["part"].flags.c_contiguous
    assert_equal(found["all"], storage)


def test_both_byte_orders_and_bfloat16(tmp_path):
    array = np.arange(5, dtype="f4") * 1.5
    assert_equal(read(tmp_path, zipped({"x": array}, "big"))["x"], array)
    halves = (array.view("u4") >> 16).astype("u2")  # exact for these values
    for write in FORMATS:
        assert_equal(read(tmp_path, write({"x": halves}))["x"], array)
        part = View(halves, 1, (2,), (2,))
        assert_equal(read(tmp_path, write({"x": part}))["x"], array[1:4:2])


class Attack:
    def __reduce__(self):
        return print, ("this code must not run",)


@pytest.mark.parametrize("write", FORMATS)
def test_code_is_refused(tmp_path, write, capfd):
    text = refused(tmp_path, write({"state_dict": {"x": np.ones(3, "f4")}, "y": Attack()}))
    assert "would call '__builtin__.print'" in text
    assert "torch.save(model.state_dict(), FILE)" in text
    assert not capfd.readouterr().out
    system = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."
    assert "would call 'os.system'" in refused(tmp_path, archive({"archive/data.pkl": system}))


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "length"),
    [
        (0, (2**30, 2**30), (0, 0), None),  # expanded: more than a regular file needs
        (0, (2**40,), (1,), None),
        (0, (2,) * 40, (0,) * 40, None),
        (0, (5,), (1,), None),  # one more than the storage has
        (1, (2, 2), (2, 1), None),
        (4, (1,), (1,), None),
        (-1, (1,), (1,), None),
        (0, (2,), (-1,), None),
        (0, (2, 2), (1,), None),
        (0, (4,), (1,), 2**40),
        (0, (4,), (1,), 5),
    ],
)
@pytest.mark.parametrize("write", FORMATS)
def test_layouts_outside_of_the_storage_are_refused(
    tmp_path, write, offset, shape, strides, length
):
    refused(tmp_path, write({"x": View(np.ones(4, "f4"), offset, shape, strides, length)}))


def archive(members: dict[str, bytes], compression=zipfile.ZIP_STORED, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, compression
            file.writestr(info, content)
    return buffer.getvalue()


def overlapping(count: int = 50, size: int = 100_000) -> bytes:
    """An archive whose directory lists the same bytes many times."""
    data = archive({"archive/data.pkl": b"\x80\x02}.", "archive/data/0": bytes(size)})
    start = data.index(b"PK\x01\x02", size)
    end = data.index(b"PK\x05\x06")
    second = data.index(b"PK\x01\x02", start + 1)
    directory = data[start:second] + data[second:end] * count
    tail = struct.pack(
        "<4sHHHHIIH", b"PK\x05\x06", 0, 0, count + 1, count + 1, len(directory), start, 0
    )
    return data[:start] + directory + tail


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes"),
        (b"\x80\x04}.", "another pickle"),
        (pickle.dumps({"w": np.ones(3)}, protocol=4), "another pickle"),
        (b"<html>", "can't be read as a PyTorch file"),
        (archive({"archive/version": b"3"}), "contains no data.pkl"),
        (archive({"a/data.pkl": b"\x80\x02}.", "a/constants.pkl": b""}), "TorchScript"),
        (archive({"a/data.pkl": b"\x80\x02}."}, zipfile.ZIP_DEFLATED), "is compressed"),
        (archive({"a/data.pkl": b"/etc/passwd"}, mode=0o120777), "is a link"),
        (overlapping(), "overlap"),
        (legacy({"x": np.ones(3, "f4")}, version=1), "version 1"),
        (legacy({"x": np.ones(3, "f4")}, little_endian=False), "another byte order"),
    ],
)
def test_other_files_are_refused(tmp_path, data, problem):
    assert problem in refused(tmp_path, data)


@pytest.mark.parametrize("write", FORMATS)
def test_truncated_and_damaged_files_are_refused(tmp_path, write):
    data = write(state_dict({f"layer{i}.weight": np.ones((4, 4), "f4") for i in range(4)}))
    for length in range(0, len(data) - 1, max(1, len(data) // 40)):
        refused(tmp_path, data[:length])
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with contextlib.suppress(UserError):  # or another value
            read(tmp_path, bytes(damaged))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*absent.pth: No such file"):
        read_torch(tmp_path / "absent.pth")


@pytest.mark.parametrize("zipped_format", [True, False])
def test_files_of_pytorch_itself(tmp_path, zipped_format):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).half()
    content = {"net": layer.state_dict(), "t": torch.arange(12).reshape(3, 4).T, "epoch": 1}
    path = tmp_path / "model.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped_format)
    found = read_torch(path)
    assert_equal(found["t"], content["t"].numpy())
    for key, tensor in layer.state_dict().items():
        assert_equal(found["net"][key], tensor.numpy())
