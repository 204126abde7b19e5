"""Loss weights of the classes from how often they occur."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# The names a config may give as a loss's `weight`, and the power of ENet's weights they stand for.
WEIGHT_SCHEMES = {"auto": 0.5, "enet": 1.0}
# Stands for weights that only the training set tells.
UNMEASURED = dict.fromkeys(WEIGHT_SCHEMES, np.ones(1))


def class_weights(counts: np.ndarray, scheme: str = "auto") -> np.ndarray:
    """Loss weights against class imbalance: ENet's 1 / ln(1.02 + p), or their square root.

    p is the class's share of the labelled pixels; ENet is arXiv 1606.02147, section 5.2. Its own
    weights ("enet"), up to 36 times the smallest one, buy recall with precision: on CamVid, thin
    and rare classes were predicted much too often. Their root ("auto") is the milder choice; the
    other one is `CrossEntropyLoss`'s `logit_shift`. The weights are scaled so that a labelled pixel
    weighs 1 on average (sum of p·w is 1): the loss keeps its size, and the learning rate its
    meaning. A class that never occurs weighs as much as a vanishingly rare one.

    Args:
        counts: (num_classes,) pixels, as from `class_frequencies`.
        scheme: one of `WEIGHT_SCHEMES`.

    Returns:
        (num_classes,) float32, finite and positive; all ones if nothing is labelled.
    """
    total = counts.sum()
    if total == 0:
        return np.ones(len(counts), np.float32)
    share = counts / total
    weights = np.log(1.02 + share) ** -WEIGHT_SCHEMES[scheme]
    return (weights / (share * weights).sum()).astype(np.float32)


def is_scheme(weight: Any) -> bool:
    """Whether a loss's `weight` is the name of a scheme."""
    return isinstance(weight, str) and weight in WEIGHT_SCHEMES


def schemes_of(spec: Any) -> set[str]:
    """The schemes that the losses of `spec`, a part of a config, ask for."""
    if isinstance(spec, list):
        return set().union(*map(schemes_of, spec))
    if not isinstance(spec, dict):
        return set()
    named = {spec["weight"]} if is_scheme(spec.get("weight")) else set()
    return named | schemes_of(list(spec.values()))


def with_measured(spec: Any, measured: Mapping[str, np.ndarray]) -> Any:
    """`spec` with every name of a scheme replaced by its weights, as a list."""
    if isinstance(spec, list):
        return [with_measured(item, measured) for item in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        key: measured[value].tolist()
        if key == "weight" and is_scheme(value)
        else with_measured(value, measured)
        for key, value in spec.items()
    }
