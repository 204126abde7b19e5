"""Writes files in both formats of `torch.save` without PyTorch, from arrays for tensors."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

NAMES = {
    **{"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short"},
    **{"i1": "Char", "u1": "Byte", "b1": "Bool", "u2": "BFloat16"},
}
STORAGES = {
    code: type(f"{name}Storage", (), {"__module__": "torch"}) for code, name in NAMES.items()
}


class View(NamedTuple):
    """A tensor that is a part of a storage, a 1-D array. Strides count elements."""

    storage: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    length: int | None = None  # of the storage, where the pickle declares another one


def _rebuild_tensor_v2(*arguments):
    raise NotImplementedError


def _rebuild_parameter(*arguments):
    raise NotImplementedError


class Parameter(NamedTuple):
    """A tensor that is pickled as `torch.nn.Parameter`."""

    data: np.ndarray


class _Storage(NamedTuple):
    key: str
    kind: type
    length: int


class _Pickler(pickle.Pickler):
    def __init__(self, file, legacy: bool):
        super().__init__(file, protocol=2)
        self.legacy, self.arrays, self._keys = legacy, {}, {}

    def storage(self, array: np.ndarray, length: int | None = None) -> _Storage:
        key = self._keys.setdefault(id(array), str(len(self._keys)))
        self.arrays[key] = array
        kind = STORAGES[array.dtype.str[1:]]
        return _Storage(key, kind, array.size if length is None else length)

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            extra = (None,) if self.legacy else ()
            return ("storage", value.kind, value.key, "cpu", value.length, *extra)
        return None

    def reducer_override(self, value):
        if isinstance(value, Parameter):
            return _rebuild_parameter, (value.data, True, OrderedDict())
        if isinstance(value, np.ndarray):
            flat = np.ascontiguousarray(value).reshape(-1)
            strides = tuple(
                int(s) // value.itemsize for s in np.empty_like(value, order="C").strides
            )
            value = View(flat, 0, value.shape, strides)
        if isinstance(value, View):
            storage = self.storage(value.storage, value.length)
            rest = (value.offset, value.shape, value.strides, False, OrderedDict())
            return _rebuild_tensor_v2, (storage, *rest)
        return NotImplemented


@contextmanager
def _fake_torch() -> Iterator[None]:
    """Modules under the names that the pickles contain."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in STORAGES.values():
        setattr(torch, kind.__name__, kind)
    for function in (_rebuild_tensor_v2, _rebuild_parameter):
        function.__module__ = "torch._utils"
        setattr(utils, function.__name__, function)
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        yield


def _pickled(value: Any, legacy: bool) -> tuple[bytes, dict[str, np.ndarray]]:
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, legacy)
    with _fake_torch():
        pickler.dump(value)
    return buffer.getvalue(), pickler.arrays


def zipped(value: Any, byteorder: str = "little", root: str = "archive") -> bytes:
    """The bytes of `torch.save(value)` of PyTorch 1.6 and later."""
    content, arrays = _pickled(value, legacy=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", content)
        archive.writestr(f"{root}/byteorder", byteorder)
        for key, array in arrays.items():
            swapped = array.astype(array.dtype.newbyteorder(">" if byteorder == "big" else "<"))
            archive.writestr(f"{root}/data/{key}", swapped.tobytes())
        archive.writestr(f"{root}/version", "3\n")
    return buffer.getvalue()


def legacy(value: Any, *, little_endian: bool = True, version: int = 1001) -> bytes:
    """The bytes of `torch.save(value)` before PyTorch 1.6."""
    content, arrays = _pickled(value, legacy=True)
    sizes = {"short": 2, "int": 4, "long": 4}
    machine = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": sizes}
    heads = (0x1950A86A20F9469CFC6C, version, machine)
    parts = [pickle.dumps(head, protocol=2) for head in heads]
    parts += [content, pickle.dumps(sorted(arrays), protocol=2)]
    for key in sorted(arrays):
        parts += [arrays[key].size.to_bytes(8, "little"), arrays[key].tobytes()]
    return b"".join(parts)


def state_dict(arrays: dict[str, Any]) -> OrderedDict:
    """As a module returns it, with the versions of its layers as an attribute."""
    state = OrderedDict(arrays)
    state._metadata = OrderedDict({"": {"version": 1}})
    return state
