"""One computation with Paddle at a time, in a thread that lasts.

Recording a graph (`onednn`, exports) switches the whole process to static mode for a moment,
concurrent runs of one graph or predictor overwrite each other's tensors, and a thread that ran
oneDNN frees the tensors of others when it ends. So training, evaluation, prediction and Paddle
Inference run in the main thread, or else in a daemon thread of this module, one after the other;
training and evaluation let the others run after each iteration or batch. Each uses all cores.

Code of your own that computes with Paddle in several threads decorates it with `exclusive`.
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Optional, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_Job = tuple[Future, Callable[[], Any]]

_changed = threading.Condition()  # guards all below
_jobs: deque[_Job] = deque()
_holder = 0  # the thread that computes
_server: Optional[threading.Thread] = None


def exclusive(function: F) -> F:
    """Decorator: the function runs while no other decorated one does, and waits for its turn."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        global _holder, _server
        me = threading.current_thread()
        if me.ident == _holder:
            return function(*args, **options)
        call = functools.partial(contextvars.copy_context().run, function, *args, **options)
        with _changed:
            in_place = me is threading.main_thread() and not (_holder or _jobs)
            if in_place:
                _holder = me.ident or 0
            else:
                future: Future = Future()
                _jobs.append((future, call))
                if _server is None or not _server.is_alive():  # also after a fork
                    _server = threading.Thread(target=_serve, name="liteseg", daemon=True)
                    _server.start()
                _changed.notify_all()
        if not in_place:
            return future.result()
        try:
            return function(*args, **options)
        finally:
            _let_go()

    return run  # type: ignore[return-value]


def give_way() -> None:
    """Run the functions that wait for their turn; call it inside of an exclusive one."""
    while _jobs:
        _run(_jobs.popleft())


def lasts() -> bool:
    """Whether the current thread is one of the two that compute."""
    return threading.current_thread() in (threading.main_thread(), _server)


def _serve() -> None:
    global _holder
    while True:
        with _changed:
            while _holder or not _jobs:
                _changed.wait()
            _holder, job = threading.get_ident(), _jobs.popleft()
        _run(job)
        del job  # its result may be large
        _let_go()


def _run(job: _Job) -> None:
    future, call = job
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # raised again in the thread of the caller
        future.set_exception(error)


def _let_go() -> None:
    global _holder
    with _changed:
        _holder = 0
        _changed.notify_all()
