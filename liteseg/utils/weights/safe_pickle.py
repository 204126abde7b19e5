"""Reading pickles from the internet: numpy arrays and plain containers, nothing that runs code.

A pickle is a small program: it names functions to import and calls them. Here every name outside
a short list is refused, and the names in the list are answered by stand-ins of our own that take
just the arguments numpy and `paddle.save` write. So neither a listed function with odd arguments
nor a header that declares terabytes gets further than an error.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np

from liteseg.errors import UserError

_DTYPE_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_SCALARS = (str, bytes, bool, int, float, type(None), np.ndarray, np.generic)
_HEADS = {
    b"PK\x03\x04": "a zip archive (perhaps PyTorch weights)",
    b"\x1f\x8b": "a gzip archive whose name does not end in .tar.gz",
    b"<": "a web page (the download was answered by an error page or a log-in)",
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for",
}


class _DType:
    """Stands in for `numpy.dtype` while unpickling: numbers and booleans only."""

    def __init__(self, code: str, *flags: bool):
        if not _DTYPE_CODE.fullmatch(code):
            raise ValueError(f"an array of type {code!r} is not numbers")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _version, order, *structure = state[:5]
        if any(structure):
            raise ValueError("a structured array type is not numbers")
        self.numpy = self.numpy.newbyteorder(order)


class _Array:
    """Stands in for an array between numpy's `_reconstruct` and the state that fills it."""

    value = None

    def __init__(self, unpickler: _ArrayUnpickler):
        self._unpickler = unpickler

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran, data = state
        self.value = self._unpickler.array(data, dtype, shape, "F" if fortran else "C")


class _ArrayUnpickler(pickle.Unpickler):
    """Answers the names that numpy's pickles ask for with its own methods; refuses all others."""

    _ADMITTED = {
        "numpy.ndarray": "_ndarray",
        "numpy.dtype": "_dtype",
        "numpy.core.multiarray._reconstruct": "_reconstruct",
        "numpy.core.multiarray.scalar": "_scalar",
        "numpy.core.numeric._frombuffer": "_frombuffer",  # protocol 5
        # How protocol 2 writes bytes.
        "_codecs.encode": "_encode",
        "__builtin__.bytes": "_empty_bytes",
        "collections.OrderedDict": "_ordered_dict",
        # paddle.save writes a tensor inside nested state as tuple((name, array)).
        "builtins.tuple": "_named_tensor",
        "__builtin__.tuple": "_named_tensor",
    }
    _ndarray = "numpy.ndarray"

    def __init__(self, data: bytes, source: str):
        # latin1 reads the byte strings of pickles written by Python 2.
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._source = source
        # The same bytes can be asked for again and again: without a budget a small file could
        # fill the memory. Honest files need each byte once, or twice under protocol 2.
        self._budget = 3 * len(data)

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        # numpy 2 renamed numpy.core
        method = self._ADMITTED.get(re.sub(r"^numpy\._core\.", "numpy.core.", wanted))
        if method is None:
            raise UserError(
                f"{self._source}: refused, because on loading it would call {wanted!r}; weights "
                "hold numpy arrays and nothing else, so this file may be an attack. Get it from "
                "its publisher; if it is your own, save paddle's state_dict() again with "
                "paddle.save"
            )
        return getattr(self, method)

    def array(self, data: Any, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
        """An array of its own memory in native byte order, if `data` is exactly what it needs."""
        data = data.encode("latin1") if isinstance(data, str) else data
        # Checked first: the product of odd objects can itself be enormous.
        if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
            raise ValueError("the shape of an array is not a few whole numbers")
        needed = math.prod(shape) * dtype.numpy.itemsize
        if needed != len(data):
            raise ValueError(
                f"an array of shape {list(shape)} needs {needed} bytes, not {len(data)}"
            )
        self._spend(needed)
        stored = np.ndarray(shape, dtype.numpy, data, order=order)
        return np.array(stored, dtype.numpy.newbyteorder("="), order="C")

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise ValueError("it unpacks to far more than its own size")

    def _dtype(self, code: str, *flags: bool) -> _DType:
        return _DType(code, *flags)

    def _reconstruct(self, kind: str, shape: tuple, typecode: Any) -> _Array:
        if kind is not self._ndarray or shape != (0,):
            raise ValueError("an array is not built in numpy's way")
        return _Array(self)

    def _scalar(self, dtype: _DType, data: Any) -> np.generic:
        return self.array(data, dtype, (), "C")[()]

    def _frombuffer(self, data: Any, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
        return self.array(data, dtype, shape, order)

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes are stored as {encoding!r}, not as latin1")
        self._spend(len(text))
        return text.encode("latin1")

    def _empty_bytes(self) -> bytes:
        return b""

    def _ordered_dict(self) -> dict:
        return {}

    def _named_tensor(self, pair: tuple) -> Any:
        name, array = pair
        if not isinstance(name, str) or not isinstance(array, (_Array, np.ndarray)):
            raise ValueError("tuple() is called on something else than a tensor's name and values")
        return array


def _check_declared_sizes(data: bytes) -> None:
    """Raise ValueError if an instruction declares more than the file holds.

    Python's unpickler sets memory aside before it reads: first for the length that a byte string
    declares, and for a table as large as the highest memo number.
    """
    for count, (instruction, argument, position) in enumerate(pickletools.genops(data)):
        if instruction.name == "FRAME" and argument > len(data) - position:
            raise ValueError(f"a part of {argument} bytes is declared, more than there are")
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > count:
            raise ValueError(f"memo number {argument} is declared before it can be needed")


def portable(value: Any, _seen: dict[int, Any] | None = None) -> Any:
    """A copy of nested dicts, lists and tuples in which tensors have become numpy arrays.

    Numbers, strings, bytes, None and numpy values stay; bfloat16 tensors become float32, as
    numpy has no bfloat16.

    Raises:
        TypeError: anything else is inside.
        ValueError: a container holds itself.
    """
    seen = {} if _seen is None else _seen
    if isinstance(value, _Array):
        value = value.value
        if value is None:
            raise ValueError("an array has no content")
    if isinstance(value, _SCALARS):
        return value
    if hasattr(value, "numpy") and hasattr(value, "dtype"):
        return (value.astype("float32") if "bfloat16" in str(value.dtype) else value).numpy()
    if not isinstance(value, (dict, list, tuple)):
        raise TypeError(f"a {type(value).__name__} is neither a number, a text nor an array")
    if id(value) not in seen:
        seen[id(value)] = None  # in the making
        if isinstance(value, dict):
            if not all(isinstance(key, (str, int)) for key in value):
                raise TypeError("a dict has keys that are neither text nor whole numbers")
            seen[id(value)] = {key: portable(item, seen) for key, item in value.items()}
        else:
            items = [portable(item, seen) for item in value]
            seen[id(value)] = items if isinstance(value, list) else tuple(items)
    if seen[id(value)] is None:
        raise ValueError("a container holds itself")
    return seen[id(value)]


def loads(data: bytes, source: str) -> Any:
    """The nested containers and arrays that `data` holds; memory stays in proportion to its size.

    Args:
        data: a whole pickle of any protocol.
        source: the file's name, for messages.

    Raises:
        UserError: it asks for anything but numpy arrays (the message names it), is cut short,
            declares more than it holds, or is no pickle.
    """
    unpickler = _ArrayUnpickler(data, source)
    try:
        _check_declared_sizes(data)
        return portable(unpickler.load())
    except UserError:
        raise
    # A hostile or broken pickle can make the unpickler raise almost anything.
    except Exception as error:
        what = next((kind for head, kind in _HEADS.items() if data.lstrip().startswith(head)), None)
        if what is None:
            what = "empty" if not data else f"damaged, cut short, or no pickle at all ({error})"
        raise UserError(
            f"{source} ({len(data)} bytes) can't be read as weights: it is {what}; delete it and "
            "get it again"
        ) from error
    finally:
        # The memo holds the arrays, and they the unpickler: before 3.11 Python never frees such.
        unpickler.memo.clear()
