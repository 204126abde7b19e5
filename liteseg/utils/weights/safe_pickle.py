"""An unpickler for untrusted files: numpy arrays and plain containers, no code.

A pickle is a program that imports functions by name and calls them. Here every name outside a
short list is rejected. The listed names map to replacements that accept only the arguments that
numpy and `paddle.save` write, so that neither a listed function with other arguments nor a header
that declares terabytes can do harm.
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
_LEAVES = (str, bytes, bool, int, float, type(None), np.ndarray, np.generic)
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (perhaps PyTorch weights)",
    b"\x1f\x8b": "a gzip archive whose name does not end in .tar.gz",
    b"<": "a web page (the server sent an error or login page)",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
}


class _DType:
    """Replacement for `numpy.dtype`: numbers and booleans only."""

    def __init__(self, code: str, *flags: bool):
        if not _DTYPE_CODE.fullmatch(code):
            raise ValueError(f"array type {code!r} is not numeric")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _version, order, *structure = state[:5]
        if any(structure):
            raise ValueError("a structured array type is not numeric")
        self.numpy = self.numpy.newbyteorder(order)


class _Array:
    """An array between numpy's `_reconstruct` and the state with its content."""

    value: np.ndarray | None = None

    def __init__(self, unpickler: _ArrayUnpickler):
        self._unpickler = unpickler

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran, data = state
        self.value = self._unpickler.array(data, dtype, shape, "F" if fortran else "C")


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves the names in numpy's pickles to its own methods and rejects all others."""

    _ALLOWED = {
        "numpy.ndarray": "_ndarray",
        "numpy.dtype": "_dtype",
        "numpy.core.multiarray._reconstruct": "_reconstruct",
        "numpy.core.multiarray.scalar": "_scalar",
        "numpy.core.numeric._frombuffer": "array",  # protocol 5
        "_codecs.encode": "_encode",  # bytes in protocol 2
        "__builtin__.bytes": "_empty_bytes",
        "collections.OrderedDict": "_ordered_dict",
        # paddle.save writes a tensor in nested state as tuple((name, array)).
        "builtins.tuple": "_named_tensor",
        "__builtin__.tuple": "_named_tensor",
    }
    _ndarray = "numpy.ndarray"

    def __init__(self, data: bytes, source: str):
        # latin1 reads the byte strings of pickles written by Python 2.
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._source = source
        # A pickle can use the same bytes many times: without a budget a small file could fill the
        # memory. Regular files need each byte once, or twice in protocol 2.
        self._budget = 3 * len(data)

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        # numpy 2 renamed numpy.core
        method = self._ALLOWED.get(re.sub(r"^numpy\._core\.", "numpy.core.", full_name))
        if method is None:
            raise UserError(
                f"{self._source}: rejected, because loading it would call {full_name!r}; weights "
                "contain only numpy arrays, so this file may be an attack. Get it from its "
                "publisher; if it is your own, save paddle's state_dict() again with paddle.save"
            )
        return getattr(self, method)

    def array(self, data: Any, dtype: _DType, shape: tuple, order: Any) -> np.ndarray:
        """A copy of `data` as an array in native byte order; its size must match exactly."""
        data = data.encode("latin1") if isinstance(data, str) else data
        # Checked first: the product of arbitrary objects can itself be enormous.
        if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
            raise ValueError("the shape of an array is not a few integers")
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
            raise ValueError("an array is not constructed as numpy does")
        return _Array(self)

    def _scalar(self, dtype: _DType, data: Any) -> Any:
        return self.array(data, dtype, (), "C")[()]

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes are encoded as {encoding!r}, expected latin1")
        self._spend(len(text))
        return text.encode("latin1")

    def _empty_bytes(self) -> bytes:
        return b""

    def _ordered_dict(self) -> dict:
        return {}

    def _named_tensor(self, pair: tuple) -> Any:
        name, array = pair
        if not isinstance(name, str) or not isinstance(array, (_Array, np.ndarray)):
            raise ValueError("tuple() is not called on the name and values of a tensor")
        return array


def _check_declared_sizes(data: bytes) -> None:
    """Raise ValueError if an instruction declares more than the file contains.

    Python's unpickler allocates memory before it reads: for the declared length of a byte string,
    and for a table as large as the highest memo number.
    """
    argument: Any
    for count, (instruction, argument, position) in enumerate(pickletools.genops(data)):
        if instruction.name == "FRAME" and argument > len(data) - (position or 0):
            raise ValueError(f"it declares a frame of {argument} bytes, more than it has")
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > count:
            raise ValueError(f"it uses memo number {argument} too early")


def portable(value: Any, _seen: dict[int, Any] | None = None) -> Any:
    """Copy nested dicts, lists and tuples, with tensors converted to numpy arrays.

    Numbers, strings, bytes, None and numpy values are kept; bfloat16 tensors become float32,
    because numpy has no bfloat16.

    Raises:
        TypeError: a value of another type.
        ValueError: a container that contains itself.
    """
    seen = {} if _seen is None else _seen
    if isinstance(value, _Array):
        value = value.value
        if value is None:
            raise ValueError("an array has no content")
    if isinstance(value, _LEAVES):
        return value
    if hasattr(value, "numpy") and hasattr(value, "dtype"):
        return (value.astype("float32") if "bfloat16" in str(value.dtype) else value).numpy()
    if not isinstance(value, (dict, list, tuple)):
        raise TypeError(f"a {type(value).__name__} is neither a number, text nor an array")
    if id(value) not in seen:
        seen[id(value)] = None  # in progress
        if isinstance(value, dict):
            if not all(isinstance(key, (str, int)) for key in value):
                raise TypeError("a dict has keys that are neither text nor integers")
            seen[id(value)] = {key: portable(item, seen) for key, item in value.items()}
        else:
            items = [portable(item, seen) for item in value]
            seen[id(value)] = items if isinstance(value, list) else tuple(items)
    if seen[id(value)] is None:
        raise ValueError("a container contains itself")
    return seen[id(value)]


def loads(data: bytes, source: str) -> Any:
    """Unpickle nested containers and arrays; memory stays proportional to the size of `data`.

    Args:
        data: a whole pickle of any protocol.
        source: the file name, for messages.

    Raises:
        UserError: `data` would call a function other than numpy's for arrays (the message names
            it), is truncated, declares more than it contains, or is not a pickle.
    """
    unpickler = _ArrayUnpickler(data, source)
    try:
        _check_declared_sizes(data)
        return portable(unpickler.load())
    except UserError:
        raise
    # A hostile or broken pickle can make the unpickler raise almost anything.
    except Exception as error:
        start = data.lstrip()
        problem = next(
            (text for head, text in _OTHER_FORMATS.items() if start.startswith(head)), ""
        )
        if not problem:
            problem = f"damaged, truncated, or not a pickle ({error})" if data else "empty"
        raise UserError(
            f"{source} ({len(data)} bytes) can't be read as weights: it is {problem}; delete it "
            "and download it again"
        ) from error
    finally:
        # The memo refers to the arrays, and they to the unpickler: before Python 3.11 the garbage
        # collector does not free this cycle.
        unpickler.memo.clear()
