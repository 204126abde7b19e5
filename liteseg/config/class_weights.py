"""Schemes for the `weight` of a loss: class weights measured on the training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from liteseg.utils.class_weights import WEIGHT_SCHEMES

# Placeholder for weights that need the training set.
UNMEASURED = dict.fromkeys(WEIGHT_SCHEMES, np.ones(1))


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
