"""Loss weights per class from class frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Names accepted as a loss's `weight`, with the exponent applied to ENet's weights.
WEIGHT_SCHEMES = {"auto": 0.5, "enet": 1.0}
# Placeholder for weights that need the training set.
UNMEASURED = dict.fromkeys(WEIGHT_SCHEMES, np.ones(1))


def class_weights(counts: np.ndarray, scheme: str = "auto") -> np.ndarray:
    """Loss weights against class imbalance: ENet's 1 / ln(1.02 + p), or their square root.

    p is the class's share of the labelled pixels; ENet is arXiv 1606.02147, section 5.2. Its own
    weights ("enet", ratios up to 36) trade precision for recall: on CamVid, thin and rare classes
    were predicted much too often. Their root ("auto") is milder; `CrossEntropyLoss` offers
    `logit_shift` as another choice. Weights are scaled to a mean of 1 over labelled pixels (sum of
    p·w is 1), so that the loss keeps its scale. An absent class is weighted as a very rare one.

    Args:
        counts: (num_classes,) pixels, labelled pixels per class.
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
    """The schemes named by the losses of `spec`, a part of a config."""
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
