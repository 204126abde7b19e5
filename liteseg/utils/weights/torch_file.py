"""Files of `torch.save`, read without PyTorch: tensors become numpy arrays, and no code runs.

Both formats are read: the zip archive of PyTorch 1.6 and later (a pickle `data.pkl` and a file for
each storage, uncompressed), and the older sequence of pickles, followed by the storages.
"""

from __future__ import annotations

import io
import math
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from liteseg.errors import UserError, quoted
from liteseg.utils.files import read_regular
from liteseg.utils.weights.safe_pickle import ArrayInProgress, ArrayUnpickler, portable, size_of

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP = b"PK\x03\x04"
_STORAGES = {
    f"torch.{name}Storage": code
    for name, code in {
        **{"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bfloat16"},
        **{"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "b1"},
    }.items()
}
_FIX = (
    "download it again from its publisher; if it is your own, write it with "
    "torch.save(model.state_dict(), FILE)"
)


class _Storage(NamedTuple):
    """A storage that tensors refer to: its number, type and number of elements."""

    key: str
    code: str
    length: int

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 2 if self.code == "bfloat16" else np.dtype(self.code).itemsize


class _Tensor(ArrayInProgress):
    """A tensor whose storage is read later."""

    def __init__(self, unpickler: _TorchUnpickler, storage: _Storage, *layout: Any):
        super().__init__(unpickler)
        self.storage = storage
        self.offset, self.shape, self.strides = layout
        count = size_of(self.shape)
        size_of((self.offset, *self.strides))  # the same limits
        if len(self.shape) != len(self.strides):
            raise ValueError("a tensor has another number of strides than of dimensions")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if count and last >= storage.length:
            raise ValueError(f"a tensor of shape {list(self.shape)} exceeds its storage")
        unpickler.spend(count * max(4, storage.itemsize))

    def read(self, storage: np.ndarray) -> None:
        """Copy the elements from the storage, (length,)."""
        strides = [stride * storage.itemsize for stride in self.strides]
        part = storage[self.offset :] if math.prod(self.shape) else storage[:0]
        view = np.lib.stride_tricks.as_strided(part, self.shape, strides, writeable=False)
        self.value = np.array(view, order="C")


class _TorchUnpickler(ArrayUnpickler):
    """Runs the pickle of `torch.save`: tensors, plain containers and plain values."""

    _ALLOWED = {
        **ArrayUnpickler._ALLOWED,
        "torch._utils._rebuild_tensor": "_tensor",
        "torch._utils._rebuild_tensor_v2": "_tensor",
        "torch._utils._rebuild_parameter": "_parameter",
        "torch.Size": "_shape",
    }
    _ADVICE = (
        "a checkpoint to import contains only tensors and plain values, so this file may be an "
        "attack. Get it from its publisher; if it is your own, write the weights alone with "
        "torch.save(model.state_dict(), FILE)"
    )

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.storages: dict[str, _Storage] = {}
        self._tensors: dict[str, list[_Tensor]] = {}  # by the key of the storage

    @property
    def end(self) -> int:
        """The position after the pickle that was loaded."""
        return self._stream.tell()

    def _function(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        return _STORAGES.get(full_name) or super()._function(module, name)

    def _outside(self) -> None:
        kind, code, key, _device, length, *view = self._stack.pop()
        if kind != "storage" or code not in _STORAGES.values() or any(view):
            raise ValueError("it refers to something other than a storage of numbers")
        size_of((length,))
        storage = _Storage(str(key), code, length)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"it describes the storage {quoted(storage.key)} in two ways")
        self._stack.append(storage)

    def _build(self) -> None:
        # The attributes of a state dict, such as the versions of its layers, are not used.
        if type(self._stack[-2]) is dict:
            self._stack.pop()
        else:
            super()._build()

    def _tensor(self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Any:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor has no storage")
        tensor = _Tensor(self, storage, offset, shape, strides)
        self._tensors.setdefault(storage.key, []).append(tensor)
        return tensor

    def _parameter(self, tensor: _Tensor, *_: Any) -> Any:
        return tensor

    def _shape(self, sizes: tuple) -> tuple:
        return tuple(sizes)

    def fill(self, read: Callable[[_Storage], bytes], order: str) -> None:
        """Give the tensors their values; `read` returns the bytes of a storage."""
        for key, tensors in self._tensors.items():
            storage = self.storages[key]
            data = read(storage)
            if len(data) != storage.length * storage.itemsize:
                raise ValueError(f"the storage {quoted(key)} has {len(data)} bytes")
            values = _values(data, storage.code, order)
            for tensor in tensors:
                tensor.read(values)


def _values(data: bytes, code: str, order: str) -> np.ndarray:
    if code == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(data, f"{order}u2").astype("u4") << 16).view("f4")
    return np.frombuffer(data, f"{order}{code}").astype(code)


def read_torch(path: str | Path) -> Any:
    """Read a file of `torch.save`: nested containers, numbers, text, and arrays for tensors.

    Raises:
        UserError: the file can't be read, is damaged, or would run code.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return portable(_read_zip(data, str(path)) if data.startswith(_ZIP) else _read(data, path))
    except UserError:
        raise
    # A hostile or broken file can make the parsers raise almost anything.
    except Exception as error:
        raise UserError(
            f"{path} ({len(data)} bytes) can't be read as a PyTorch file: {error}; {_FIX}"
        ) from error


def _read_zip(data: bytes, source: str) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries, total = {}, 0
        for info in archive.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"rejected: its member {quoted(info.filename)} is a link")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
                raise ValueError(f"rejected: its member {quoted(info.filename)} is compressed")
            entries[info.filename.partition("/")[2]] = info
            total += info.file_size
        if total > len(data):
            raise ValueError("rejected: its members overlap")
        if "data.pkl" not in entries:
            raise ValueError("the archive contains no data.pkl")
        if "constants.pkl" in entries:
            raise ValueError("it is a TorchScript program; save the state_dict of the model")
        order = ">" if _text(archive, entries.get("byteorder")) == "big" else "<"
        unpickler = _TorchUnpickler(archive.read(entries["data.pkl"]), source, 0, len(data))
        state = unpickler.load()
        unpickler.fill(lambda storage: archive.read(entries[f"data/{storage.key}"]), order)
    return state


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> str:
    return "" if info is None else archive.read(info).decode("ascii")


def _read(data: bytes, path: str | Path) -> Any:
    """The older format: magic number, version, machine, state, storage keys, storages."""
    position, parts, unpickler = 0, [], _TorchUnpickler(b"", "")
    for _ in range(5):
        unpickler, previous = _TorchUnpickler(data, str(path), position), unpickler
        parts.append(unpickler.load())
        if len(parts) == 1 and parts[0] != _MAGIC:
            raise ValueError("it begins with another pickle than PyTorch's")
        position = unpickler.end
    _, version, machine, state, keys = parts
    if version != _PROTOCOL or not machine["little_endian"]:
        raise ValueError(f"it is of version {version}, or of a machine with another byte order")
    places = {}
    for key in keys:
        storage = previous.storages[str(key)]
        if int.from_bytes(data[position : position + 8], "little") != storage.length:
            raise ValueError(f"the storage {quoted(str(key))} has another length")
        places[str(key)] = position + 8
        position += 8 + storage.length * storage.itemsize
    previous.fill(
        lambda s: data[places[s.key] : places[s.key] + s.length * s.itemsize],
        "<",
    )
    return state
