"""An unpickler for untrusted files: numpy arrays and plain containers, no code, in bounded time.

A pickle is a program that imports functions by name and calls them. Here every name outside a
short list is rejected. The listed names map to replacements that accept only the arguments that
numpy and `paddle.save` write, so that neither a listed function with other arguments nor a header
that declares terabytes can do harm.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from liteseg.errors import UserError, quoted

_DTYPE_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_LEAVES = (str, bytes, bool, int, float, type(None), np.ndarray, np.generic)
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (PyTorch weights are read by `liteseg models import`)",
    b"\x1f\x8b": "a gzip archive whose name does not end in .tar.gz",
    b"<": "a web page (the server sent an error or login page)",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
}
# Weights and training states have some thousands; each instruction builds at most one object.
_MAX_INSTRUCTIONS = 500_000
_BY_CODE = {instruction.code: instruction for instruction in pickletools.opcodes}
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
# Instructions that push their argument. Byte strings of Python 2 are read as latin1.
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING",
           "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
           "BINBYTES8", "BYTEARRAY8"}  # fmt: skip
_STEPS = {"MARK": "_mark", "APPEND": "_append", "APPENDS": "_extend", "SETITEM": "_set_item",
          "SETITEMS": "_set_items", "TUPLE": "_tuple", "TUPLE1": "_tuple1", "TUPLE2": "_tuple2",
          "TUPLE3": "_tuple3", "STACK_GLOBAL": "_stack_global", "REDUCE": "_call",
          "BUILD": "_build", "BINPERSID": "_outside"}  # fmt: skip


def size_of(shape: tuple) -> int:
    """The number of elements of an array; ValueError if its shape is not a few integers."""
    # Checked first: the product of arbitrary objects can itself be enormous.
    if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise ValueError("the shape of an array is not a few integers")
    return math.prod(shape)


class _DType:
    """Replacement for `numpy.dtype`: numbers and booleans only."""

    def __init__(self, code: str, *flags: bool):
        if not _DTYPE_CODE.fullmatch(code):
            raise ValueError(f"array type {quoted(code)} is not numeric")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _version, order, *structure = state[:5]
        if any(structure):
            raise ValueError("a structured array type is not numeric")
        self.numpy = self.numpy.newbyteorder(order)


class ArrayInProgress:
    """An array between numpy's `_reconstruct` and the state with its content."""

    value: np.ndarray | None = None

    def __init__(self, unpickler: ArrayUnpickler):
        self._unpickler = unpickler

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran, data = state
        self.value = self._unpickler.array(data, dtype, shape, "F" if fortran else "C")


_KNOWN = {*_VALUES, *_CONSTANTS, *_EMPTY, *_STEPS, "PROTO", "FRAME", "GLOBAL", "STOP", "MEMOIZE",
          "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}  # fmt: skip


def _instructions(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Name and argument of each; the argument is not read before the name is checked."""
    while code := stream.read(1).decode("latin1"):
        instruction = _BY_CODE.get(code)
        if instruction is None or instruction.name not in _KNOWN:
            raise ValueError(f"weights contain no {instruction.name if instruction else code!r}")
        yield instruction.name, instruction.arg and instruction.arg.reader(stream)


class ArrayUnpickler:
    """Runs the instructions of a pickle that contains arrays in plain containers.

    Python's unpickler also runs instructions that no weights contain, hashes nested keys for ever
    and cannot be interrupted. Here names map to methods, all others are rejected, keys are text or
    integers, and the number of instructions is limited.

    Args:
        data: contains the pickle.
        source: the file name, for messages.
        start: position of the pickle.
        size: bytes of the whole file, where the arrays are outside of `data`.
    """

    _ADVICE = (
        "weights contain only numpy arrays, so this file may be an attack. Get it from its "
        "publisher; if it is your own, save paddle's state_dict() again with paddle.save"
    )

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

    def __init__(self, data: bytes, source: str, start: int = 0, size: int | None = None):
        self._data, self._source = data, source
        self._stream = io.BytesIO(data)
        self._stream.seek(start)
        self._stack: list[Any] = []
        # A pickle can use the same bytes many times: without a budget a small file could fill the
        # memory. Regular files need each byte once, or twice in protocol 2.
        self._budget = 3 * (len(data) if size is None else size)

    def load(self) -> Any:
        """The value of the whole pickle.

        Raises:
            UserError: it would call another function.
            Exception: it is damaged or hostile.
        """
        stack = self._stack
        memo: dict[int, Any] = {}
        argument: Any
        for count, (name, argument) in enumerate(_instructions(self._stream)):
            if count > _MAX_INSTRUCTIONS:
                raise ValueError(f"it has more than {_MAX_INSTRUCTIONS} instructions")
            if name == "STOP":
                return stack.pop()
            if name in _VALUES:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                stack.append(_EMPTY[name]())
            elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
                number = len(memo) if argument is None else argument
                if number > count:
                    raise ValueError(f"it uses memo number {number} too early")
                memo[number] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(self._function(*argument.split(" ")))
            elif name == "FRAME" and argument > len(self._data):
                raise ValueError(f"it declares a frame of {argument} bytes, more than it has")
            elif name in _STEPS:
                getattr(self, _STEPS[name])()
        raise ValueError("it has no end")

    def _since_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1  # IndexError without a mark
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _append(self) -> None:
        self._extend([self._stack.pop()])

    def _extend(self, items: list[Any] | None = None) -> None:
        items = self._since_mark() if items is None else items
        if type(self._stack[-1]) is not list:
            raise ValueError("it appends to something other than a list")
        self._stack[-1] += items

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _set_items(self, items: list[Any] | None = None) -> None:
        items = self._since_mark() if items is None else items
        # Hashing a nested tuple can take for ever.
        if type(self._stack[-1]) is not dict or not all(
            isinstance(k, (str, int)) for k in items[::2]
        ):
            raise ValueError("a dict has keys that are neither text nor integers")
        self._stack[-1].update(zip(items[::2], items[1::2]))

    def _tuple(self) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    def _tuple1(self) -> None:
        self._tuple_of(1)

    def _tuple2(self) -> None:
        self._tuple_of(2)

    def _tuple3(self) -> None:
        self._tuple_of(3)

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._function(module, name))

    def _call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(function(*arguments))

    def _build(self) -> None:
        state = self._stack.pop()
        if not isinstance(self._stack[-1], (_DType, ArrayInProgress)):
            raise ValueError("it sets the state of something other than an array")
        self._stack[-1].__setstate__(state)

    def _outside(self) -> None:
        raise ValueError("weights contain no BINPERSID")

    def _mark(self) -> None:
        self._stack.append(_MARK)

    def _function(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        # numpy 2 renamed numpy.core
        method = self._ALLOWED.get(re.sub(r"^numpy\._core\.", "numpy.core.", full_name))
        if method is None:
            raise UserError(
                f"{self._source}: rejected, because loading it would call {quoted(full_name)}; "
                f"{self._ADVICE}"
            )
        return getattr(self, method)

    def array(self, data: Any, dtype: _DType, shape: tuple, order: Any) -> np.ndarray:
        """A copy of `data` as an array in native byte order; its size must match exactly."""
        data = data.encode("latin1") if isinstance(data, str) else data
        needed = size_of(shape) * dtype.numpy.itemsize
        if needed != len(data):
            raise ValueError(
                f"an array of shape {list(shape)} needs {needed} bytes, not {len(data)}"
            )
        self.spend(needed)
        stored = np.ndarray(shape, dtype.numpy, data, order=order)
        return np.array(stored, dtype.numpy.newbyteorder("="), order="C")

    def spend(self, size: int) -> None:
        """Count bytes to copy; ValueError if a small file would fill the memory."""
        self._budget -= size
        if self._budget < 0:
            raise ValueError("it unpacks to far more than its own size")

    def _dtype(self, code: str, *flags: bool) -> _DType:
        return _DType(code, *flags)

    def _reconstruct(self, kind: str, shape: tuple, typecode: Any) -> ArrayInProgress:
        if kind is not self._ndarray or shape != (0,):
            raise ValueError("an array is not constructed as numpy does")
        return ArrayInProgress(self)

    def _scalar(self, dtype: _DType, data: Any) -> Any:
        return self.array(data, dtype, (), "C")[()]

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes are encoded as {quoted(encoding)}, expected latin1")
        self.spend(len(text))
        return text.encode("latin1")

    def _empty_bytes(self) -> bytes:
        return b""

    def _ordered_dict(self) -> dict:
        return {}

    def _named_tensor(self, pair: tuple) -> Any:
        name, array = pair
        if not isinstance(name, str) or not isinstance(array, (ArrayInProgress, np.ndarray)):
            raise ValueError("tuple() is not called on the name and values of a tensor")
        return array


def portable(value: Any, _seen: dict[int, Any] | None = None) -> Any:
    """Copy nested dicts, lists and tuples, with tensors converted to numpy arrays.

    Numbers, strings, bytes, None and numpy values are kept; bfloat16 tensors become float32,
    because numpy has no bfloat16.

    Raises:
        TypeError: a value of another type.
        ValueError: a container that contains itself.
    """
    seen = {} if _seen is None else _seen
    if isinstance(value, ArrayInProgress):
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
    try:
        return portable(ArrayUnpickler(data, source).load())
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
