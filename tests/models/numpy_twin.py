"""PP-LiteSeg in plain numpy (float64, evaluation mode), written from the paper and the key names.

`state` is a state dict of arrays, `at` the key prefix of the layer. Arrays are (N, C, H, W).
"""

from __future__ import annotations

import math

import numpy as np


def state_of(layer) -> dict[str, np.ndarray]:
    return {key: value.numpy().astype(np.float64) for key, value in layer.state_dict().items()}


def relu(x):
    return np.where(x > 0, x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def conv(state, at, x, stride=1, depthwise=False):
    """ "Same" padding; the kernel is summed tap by tap."""
    weight = state[at + ".weight"]
    k = weight.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    rows, cols = (math.floor((n - k) / stride) + 1 for n in x.shape[2:])
    out = 0
    for i in range(k):
        for j in range(k):
            tap = x[:, :, i : i + stride * rows : stride, j : j + stride * cols : stride]
            tap = tap[:, :, :rows, :cols]
            if depthwise:
                out = out + tap * weight[:, 0, i, j][:, None, None]
            else:
                out = out + np.tensordot(weight[:, :, i, j], tap, (1, 1)).transpose(1, 0, 2, 3)
    bias = state.get(at + ".bias")
    return out if bias is None else out + bias[:, None, None]


def batch_norm(state, at, x):
    mean, variance, scale, shift = (
        state[f"{at}.{name}"][:, None, None] for name in ("_mean", "_variance", "weight", "bias")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def conv_bn(state, at, x):
    return batch_norm(state, at + "._batch_norm", conv(state, at + "._conv", x))


def upsample(x, size):
    """Bilinear with half-pixel centers, one output pixel at a time."""
    out = np.empty((*x.shape[:2], *size))
    h, w = x.shape[2:]
    for i in range(size[0]):
        for j in range(size[1]):
            r = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            c = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            r0, c0 = int(r), int(c)
            r1, c1 = min(r0 + 1, h - 1), min(c0 + 1, w - 1)
            top = x[:, :, r0, c0] * (c0 + 1 - c) + x[:, :, r0, c1] * (c - c0)
            bottom = x[:, :, r1, c0] * (c0 + 1 - c) + x[:, :, r1, c1] * (c - c0)
            out[:, :, i, j] = top * (r0 + 1 - r) + bottom * (r - r0)
    return out


def pool_to(x, bins):
    """Averages of bins x bins cells; neighboring cells share a row where the size is odd."""
    h, w = x.shape[2:]
    out = np.empty((*x.shape[:2], bins, bins))
    for i in range(bins):
        for j in range(bins):
            rows = slice(i * h // bins, -(-(i + 1) * h // bins))
            cols = slice(j * w // bins, -(-(j + 1) * w // bins))
            out[:, :, i, j] = x[:, :, rows, cols].mean((2, 3))
    return out


def pool_halving(x):
    """Mean of the 3x3 neighborhood of every second pixel, as much of it as is in the image."""
    rows, cols = ((n + 1) // 2 for n in x.shape[2:])
    out = np.empty((*x.shape[:2], rows, cols))
    for i in range(rows):
        for j in range(cols):
            window = x[:, :, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2]
            out[:, :, i, j] = window.mean((2, 3))
    return out


def stdc_conv(state, at, x, stride=1):
    return relu(batch_norm(state, at + "bn", conv(state, at + "conv", x, stride)))


def stdc_module(state, at, x, stride):
    pieces = [stdc_conv(state, at + "conv_list.0.", x)]
    x = pieces[0]
    if stride == 2:
        x = conv(state, at + "avd_layer.0", x, stride=2, depthwise=True)
        x = batch_norm(state, at + "avd_layer.1", x)
        pieces = [pool_halving(pieces[0])]
    for i in (1, 2, 3):
        x = stdc_conv(state, f"{at}conv_list.{i}.", x)
        pieces.append(x)
    return np.concatenate(pieces, axis=1)


def stdc(state, at, x, modules):
    """Features at 1/2, 1/4, 1/8, 1/16, 1/32; `modules` of them in each of the last three stages."""
    features = [stdc_conv(state, at + "features.0.", x, stride=2)]
    features.append(stdc_conv(state, at + "features.1.", features[0], stride=2))
    number = 2
    for count in modules:
        x = features[-1]
        for i in range(count):
            x = stdc_module(state, f"{at}features.{number}.", x, stride=1 if i else 2)
            number += 1
        features.append(x)
    return features


def sppm(state, at, x, bins=(1, 2, 4)):
    total = 0
    for i, size in enumerate(bins):
        pooled = relu(conv_bn(state, f"{at}stages.{i}.1", pool_to(x, size)))
        total = total + upsample(pooled, x.shape[2:])
    return relu(conv_bn(state, at + "conv_out", total))


def _attention_maps(kind, low, up):
    """The input of the attention: low before up, and for channels averages before maxima."""
    if kind.startswith("UAFM_Sp"):
        functions = (np.mean,) if kind.endswith("_S") else (np.mean, np.max)
        return np.concatenate([f(x, 1, keepdims=True) for x in (low, up) for f in functions], 1)
    functions = (np.mean,) if kind.endswith("_S") else (np.mean, np.max)
    return np.concatenate([f(x, (2, 3), keepdims=True) for f in functions for x in (low, up)], 1)


def uafm(state, at, low, high, kind="UAFM_SpAtten"):
    low = relu(conv_bn(state, at + "conv_x", low))
    up = upsample(high, low.shape[2:])
    if kind == "UAFM":
        fused = low + up
    else:
        x = conv_bn(state, at + "conv_xy_atten.0", _attention_maps(kind, low, up))
        x = relu(x) if "Sp" in kind else np.where(x > 0, x, 0.01 * x)
        alpha = sigmoid(conv_bn(state, at + "conv_xy_atten.1", x))
        fused = low * alpha + up * (1 - alpha)
    return relu(conv_bn(state, at + "conv_out", fused))


def network(state, x, modules, kind="UAFM_SpAtten"):
    """Logits of the three heads, finest first."""
    features = stdc(state, "backbone.", x, modules)
    decoded, high = {}, sppm(state, "ppseg_head.cm.", features[-1])
    for level in (2, 1, 0):
        at = f"ppseg_head.arm_list.{level}."
        high = decoded[level] = uafm(state, at, features[2 + level], high, kind)
    logits = []
    for level in (0, 1, 2):
        inner = relu(conv_bn(state, f"seg_heads.{level}.conv", decoded[level]))
        logits.append(upsample(conv(state, f"seg_heads.{level}.conv_out", inner), x.shape[2:]))
    return logits
