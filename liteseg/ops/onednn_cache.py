"""Eviction of the copies that Paddle keeps of tensors in oneDNN's layouts.

Paddle keeps those of each operator and each input size forever: hundreds of MB for a training
iteration, and as much again for every other size.
"""

from __future__ import annotations

import tempfile
import threading
import warnings
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from liteseg.ops.device import operator_threads
from liteseg.utils.logging import get_logger

_SIZES = 64
_thread_state = threading.local()


def drop_copies() -> None:
    """Free the copies made by operators of this thread.

    A predictor can limit them to one input size at a time. Paddle counts all that runs in the
    predictor's thread under the size of its last input, and frees it at the next other size.
    """
    state = _thread_state
    if not hasattr(state, "predictor"):
        state.predictor, state.size = _try_make_predictor(), 1
        state.operator_threads = operator_threads()
    if state.predictor is None:
        return
    # 64 sizes in turn: the entries of other predictors in this process stay in the cache, and with
    # two sizes one of them could match.
    state.size = state.size % _SIZES + 1
    handle = state.predictor.get_input_handle(state.predictor.get_input_names()[0])
    handle.copy_from_cpu(np.zeros(state.size, np.float32))
    state.predictor.run()
    # The predictor resets the threads of all operators to one.
    paddle.base.core.set_num_threads(state.operator_threads)


def _try_make_predictor() -> Any:
    """The predictor, or None without a place for its file: then only memory grows."""
    try:
        return _make_predictor()
    except (OSError, RuntimeError) as error:
        get_logger().warning(f"more memory than needed will be used: no temporary file: {error}")
        return None


def _make_predictor() -> Any:
    """Paddle Inference on a graph of one ReLU, with room for the copies of one input size."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no variable in your model"
        path = f"{folder}/relu"
        paddle.jit.save(nn.ReLU(), path, input_spec=[InputSpec([None], "float32")])
        config = paddle.inference.Config(f"{path}.json", "")
        config.disable_glog_info()
        config.enable_onednn()
        config.set_onednn_cache_capacity(1)
        config.switch_ir_optim(False)
        return paddle.inference.create_predictor(config)
