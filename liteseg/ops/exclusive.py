"""One thread at a time computes with Paddle.

Recording a graph (`onednn`, exports) switches the whole process to static mode for a moment, and
concurrent runs of one graph or predictor overwrite each other's tensors. So training, evaluation,
prediction and Paddle Inference hold one lock of the process; training and evaluation pass it on
after each iteration or batch. Their operators use all cores already.

Code of your own that uses Paddle in one thread while liteseg computes in another holds it too:
`with exclusive(): ...`.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

_guard = threading.Lock()  # of the three below
_waiting: deque[tuple[int, threading.Lock]] = deque()
_owner = _depth = 0


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock; threads get it in the order of their arrival, and a holder again at once."""
    _acquire(1)
    try:
        yield
    finally:
        _release(1)


def give_way() -> None:
    """Let the threads that wait for the lock go first; the caller holds it."""
    if _waiting:
        depth = _depth
        _release(depth)
        _acquire(depth)


def _acquire(depth: int) -> None:
    global _owner, _depth
    me, turn = threading.get_ident(), threading.Lock()
    with _guard:
        if not _depth or _owner == me:
            _owner, _depth = me, _depth + depth
            return
        turn.acquire()
        _waiting.append((me, turn))
    try:
        turn.acquire()
    except BaseException:  # Ctrl-C
        with _guard:
            waits = (me, turn) in _waiting
            if waits:
                _waiting.remove((me, turn))
        if not waits:
            _release(1)
        raise
    _depth = depth  # `_release` made this thread the owner


def _release(depth: int) -> None:
    global _owner, _depth
    with _guard:
        _depth -= depth
        if not _depth and _waiting:
            _owner, turn = _waiting.popleft()
            _depth = 1
            turn.release()
