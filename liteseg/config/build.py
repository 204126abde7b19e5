"""From a config to objects: `build` makes a component, and the components among its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Union

import numpy as np

from liteseg.config.class_weights import class_weights, schemes_of, with_measured
from liteseg.config.plugins import blame, load_components
from liteseg.config.schema import NESTED, SCHEMA, setting
from liteseg.config.signature import parameters
from liteseg.errors import UserError
from liteseg.registry import DATASETS, LOSSES, LR_SCHEDULERS, MODELS, OPTIMIZERS, Registry


def build(spec: Mapping[str, Any], registry: Registry, path: str, **defaults: Any) -> Any:
    """Make the component of a mapping with `type`, and first the components among its arguments.

    Args:
        spec: `type` and the constructor's arguments.
        registry: where `type` is found.
        path: the key path, for messages.
        defaults: arguments for when the constructor knows them and `spec` does not give them;
            handed down to nested components of the same registry.

    Raises:
        UserError: no such type, arguments that don't fit, or the constructor refuses.
    """
    try:
        component = registry[spec["type"]]
    except UserError as error:
        raise UserError(f"{path}.type: {error}") from None
    arguments = {name: value for name, value in spec.items() if name != "type"}
    for name in NESTED.keys() & arguments.keys():
        nested, many = NESTED[name]
        below, here = (defaults if nested is registry else {}), f"{path}.{name}"
        if many:
            items = enumerate(arguments[name] or ())
            arguments[name] = [build(item, nested, f"{here}.{i}", **below) for i, item in items]
        elif arguments[name] is not None:
            arguments[name] = build(arguments[name], nested, here, **below)
    known = parameters(component)
    for name, value in defaults.items():
        if name in known:
            arguments.setdefault(name, value)
    try:
        inspect.signature(component).bind(**arguments)
    except TypeError as error:
        raise UserError(f"{path}: {spec['type']}: {error}") from None
    try:
        return component(**arguments)
    except (UserError, ValueError, AssertionError) as error:  # Paddle's schedules assert
        raise UserError(f"{path}: {spec['type']}: {blame(error) or error}") from error


def build_model(cfg: Mapping[str, Any]) -> Any:
    """The network; its `num_classes` is given or that of the datasets.

    Raises:
        UserError: also where model and datasets differ in the number of classes.
    """
    load_components(cfg)
    counts = class_counts(cfg)
    if len(set(counts.values())) > 1:
        raise UserError(f"numbers of classes differ: {counts}")
    derived = {"num_classes": next(iter(counts.values()))} if counts else {}
    return build(cfg["model"], MODELS, "model", **derived)


def build_dataset(cfg: Mapping[str, Any], split: str) -> Any:
    """The dataset of `train`, `val` or `test`, with its transforms.

    Raises:
        UserError: the config has none for that split, or the files are not as expected.
    """
    load_components(cfg)
    key = f"{split}_dataset"
    if cfg.get(key) is None:
        given = [name for name in SCHEMA if name.endswith("_dataset") and cfg.get(name)]
        raise UserError(f"the config has no {key} (it has {', '.join(given) or 'no dataset'})")
    return build(cfg[key], DATASETS, key)


def build_losses(
    cfg: Mapping[str, Any],
    heads: int,
    class_counts: Union[Sequence[int], Callable[[], Sequence[int]], None] = None,
) -> list[tuple[str, Any, float]]:
    """One `(name, loss, coef)` for each of the model's `heads` outputs in training.

    Args:
        cfg: its `loss.types` has one loss for all heads, or one each; `coef` likewise.
        heads: number of outputs.
        class_counts: labelled pixels of each class, from which `weight: auto` and `weight: enet`
            follow, or a function that counts them (called at most once, and only if a loss asks).

    Raises:
        UserError: numbers don't fit, or weights to measure where there is nothing to count.
    """
    load_components(cfg)
    specs, coefs = cfg["loss"]["types"], cfg["loss"].get("coef") or [1.0]
    for name, given in (("types", specs), ("coef", coefs)):
        if len(given) not in (1, heads):
            raise UserError(
                f"loss.{name}: {len(given)} entries for {heads} heads; give 1 or {heads}"
            )
    if schemes := schemes_of(specs):
        if class_counts is None:
            raise UserError(f"loss: `weight: {min(schemes)}` needs a training set to measure")
        counts = np.asarray(class_counts() if callable(class_counts) else class_counts)
        specs = with_measured(specs, {name: class_weights(counts, name) for name in schemes})
    ignore = dataset_value(cfg.get("train_dataset"), "ignore_index")
    defaults = {} if ignore is None else {"ignore_index": ignore}
    losses = []
    for head in range(heads):
        index = head if len(specs) > 1 else 0
        loss = build(specs[index], LOSSES, f"loss.types.{index}", **defaults)
        coef = coefs[head] if len(coefs) > 1 else coefs[0]
        losses.append((f"head{head}_{specs[index]['type']}", loss, float(coef)))
    return losses


def build_optimizer(cfg: Mapping[str, Any], parameters: Sequence) -> tuple[Any, Any]:
    """The optimizer of `parameters` and the learning-rate schedule inside it."""
    load_components(cfg)
    schedule = build(cfg["lr_scheduler"], LR_SCHEDULERS, "lr_scheduler", iters=cfg["iters"])
    supplied = {"parameters": parameters, "learning_rate": schedule}
    if (clip := setting(cfg, "grad_clip")) is not None:
        supplied["grad_clip"] = clip
    return build(cfg["optimizer"], OPTIMIZERS, "optimizer", **supplied), schedule


def class_counts(cfg: Mapping[str, Any]) -> dict[str, int]:
    """The number of classes, by each key that tells it."""
    model = cfg.get("model")
    counts = {"model.num_classes": model.get("num_classes") if isinstance(model, dict) else None}
    for key in ("train_dataset", "val_dataset", "test_dataset"):
        names = dataset_value(cfg.get(key), "CLASSES")
        counts[key] = len(names) if names else dataset_value(cfg.get(key), "num_classes")
    return {key: count for key, count in counts.items() if is_positive(count)}


def dataset_value(spec: Any, name: str) -> Any:
    """What a dataset's mapping gives as `name`, else its class, else its constructor's default."""
    if not is_registered(spec, DATASETS):
        return None
    component = DATASETS[spec["type"]]
    if name in spec or hasattr(component, name):
        return spec.get(name, getattr(component, name, None))
    parameter = parameters(component).get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def is_registered(spec: Any, registry: Registry) -> bool:
    name = spec.get("type") if isinstance(spec, Mapping) else None
    return isinstance(name, str) and name in registry


def is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
