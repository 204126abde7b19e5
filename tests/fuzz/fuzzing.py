"""Hypothesis settings, damaged input, and the check that a call ends in a result or a clear error.

The examples are the same in every run; LITESEG_FUZZ_ROUNDS=10 tries ten times as many.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
from typing import Callable, Optional, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from liteseg.errors import UserError

ROUNDS = int(os.environ.get("LITESEG_FUZZ_ROUNDS", "1"))
TIMEOUT_S = 60
MAX_MEMORY = 512 << 20
MAX_MESSAGE = 4000
T = TypeVar("T")

settings.register_profile(
    "liteseg",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("liteseg")


def examples(count: int) -> settings:
    """Decorator of a `given` test: the number of examples."""
    return settings(max_examples=count * ROUNDS)


def result_or_error(function: Callable[..., T], *arguments, expected: object = "") -> Optional[T]:
    """The result of a call; None if it raises a clear UserError that contains `expected`.

    Any other exception fails the test, and so does excessive memory. A hang ends the test run with
    a traceback.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulthandler.dump_traceback_later(TIMEOUT_S, exit=True, file=sys.__stderr__)
    try:
        result = function(*arguments)
    except UserError as error:
        result, message = None, str(error)
        assert str(expected) in message
        assert message.strip()
        assert len(message) < MAX_MESSAGE, message
        assert "Traceback" not in message
    finally:
        faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) * 1024 < MAX_MEMORY
    return result


# Random bytes, zeros as a crashed disk leaves them, and huge sizes, counts or offsets.
NOISE = st.one_of(
    st.binary(min_size=1, max_size=16),
    st.integers(1, 200).map(bytes),
    st.sampled_from([b"\xff\xff", b"\xff\x7f", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]),
)


@st.composite
def damaged(draw, data, noise=NOISE):
    """Bytes, or a list, of which one to three pieces are removed, replaced, repeated or inserted.

    Half of the places are near the start, where a file has its headers.
    """
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, min(len(data), 80)) | st.integers(0, len(data)))
        source = draw(st.integers(0, len(data)))
        new = draw(st.one_of(st.just(data[:0]), st.just(data[source : source + 64]), noise, noise))
        overwritten = min(begin + len(new), len(data))
        end = draw(st.sampled_from([begin, overwritten, len(data)]) | st.integers(begin, len(data)))
        data = data[:begin] + new + data[end:]
    return data
