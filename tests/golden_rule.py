"""The rule of tests/golden/README.md that stands in for stored weights and inputs."""

from __future__ import annotations

import zlib

import numpy as np
import paddle


def value(key: str, shape) -> np.ndarray:
    """The float32 array that state-dict entry `key` of the given shape holds."""
    z = np.random.RandomState(zlib.crc32(f"dev-{key}".encode())).standard_normal(tuple(shape))
    if key.endswith("_variance"):
        z = 1 + 0.1 * np.abs(z)
    elif key.endswith("_mean"):
        z = 0.1 * z
    elif key.endswith("_scale"):
        z = np.ones(tuple(shape))
    elif z.ndim == 4:
        z = z * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith(".weight"):
        z = 1 + 0.1 * z
    else:
        z = 0.1 * z
    return z.astype(np.float32)


def fill(model: paddle.nn.Layer) -> paddle.nn.Layer:
    """Give every entry of the model's state its golden value; returns the model."""
    for key, entry in model.state_dict().items():
        entry.set_value(paddle.to_tensor(value(key, entry.shape)))
    return model


def image(seed: int, shape) -> paddle.Tensor:
    """float32 normal noise of the given shape."""
    return paddle.to_tensor(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def label(seed: int, shape, n: int) -> np.ndarray:
    """int64 classes below `n`, a tenth of them 255."""
    r = np.random.RandomState(seed)
    y = r.randint(0, n, shape)
    y[r.uniform(size=shape) < 0.1] = 255
    return y.astype(np.int64)
