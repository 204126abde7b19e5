"""Cases by name, mutations, and the judgement of how a case ends.

A case is a name and a function that makes its input from a generator seeded by that name, so
`pytest 'tests/fuzz/test_fuzz_images.py::test_image[png-flip-3]'` repeats one alone. With
LITESEG_FUZZ_ROUNDS=10 each kind has ten times its cases.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
import zlib
from typing import Callable

import numpy as np

from liteseg.errors import UserError

ROUNDS = int(os.environ.get("LITESEG_FUZZ_ROUNDS", "1"))
HANGS_AFTER_S = 60
MOST_MEMORY = 512 << 20
LONGEST_MESSAGE = 4000


def rng_of(name: str) -> np.random.Generator:
    """The generator of a case."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def numbered(kinds, count: int) -> list[str]:
    """`count` case names (times ROUNDS) of each kind."""
    return [f"{kind}-{number}" for kind in kinds for number in range(count * ROUNDS)]


def ends_well(action: Callable[[], object], named: str = ""):
    """What `action` returns, or None if it ends in one clear UserError (that holds `named`).

    Any other exception fails the test, as do a hang (with a traceback of where) and memory out of
    proportion.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True, file=sys.__stderr__)
    try:
        result = action()
    except UserError as error:
        result, message = None, str(error)
        assert named in message
        assert message.strip()
        assert len(message) < LONGEST_MESSAGE, message
        assert "Traceback" not in message
    finally:
        faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) * 1024 < MOST_MEMORY
    return result


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data))]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes replaced, most often near the beginning, where the headers are."""
    spoiled = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        reach = len(data) if rng.random() < 0.5 else min(len(data), 64)
        spoiled[rng.integers(0, reach)] = rng.choice([0, 1, 127, 128, 255, rng.integers(0, 256)])
    return bytes(spoiled)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Without a piece from the middle."""
    begin, end = sorted(rng.integers(0, len(data), 2))
    return data[:begin] + data[end:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    """With noise, or a piece of its own, put in somewhere."""
    at, size = rng.integers(0, len(data)), rng.integers(1, 64)
    begin = rng.integers(0, len(data))
    piece = rng.bytes(size) if rng.random() < 0.5 else data[begin : begin + size]
    return data[:at] + piece + data[at:]


def zero(data: bytes, rng: np.random.Generator) -> bytes:
    """With a stretch of zeros, as a crashed disk leaves it."""
    begin, end = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:begin] + bytes(int(end - begin)) + data[end:]


def grow(data: bytes, rng: np.random.Generator) -> bytes:
    """A 2- or 4-byte number in the first bytes made enormous: sizes, counts, offsets."""
    at = rng.integers(0, min(len(data), 80))
    huge = rng.choice([b"\xff\xff", b"\xff\x7f", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    return data[:at] + bytes(huge) + data[at + len(huge) :]


MUTATIONS = {mutation.__name__: mutation for mutation in (truncate, flip, cut, insert, zero, grow)}
