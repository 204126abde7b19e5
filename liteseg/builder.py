"""From a config to objects: `check` finds every error first, `build` makes the components.

`check` needs no data: it compares keys with the schema, arguments with the constructors'
signatures, and constructs what is cheap (transforms, losses, schedules) to hear their own opinion.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, Union

import numpy as np

from liteseg.class_weights import UNMEASURED, class_weights, is_scheme, schemes_of, with_measured
from liteseg.config import Config
from liteseg.errors import UserError, quoted
from liteseg.plugins import blame, load_components
from liteseg.registry import (
    DATASETS,
    LOSSES,
    LR_SCHEDULERS,
    MODELS,
    OPTIMIZERS,
    TRANSFORMS,
    Registry,
    nearest,
)
from liteseg.schema import DERIVED, FOREIGN, NESTED, REQUIRED, SCHEMA, SUPPLIED, Key, setting
from liteseg.signature import annotations, misfit, parameters, takes_anything

_CHEAP = (TRANSFORMS, LOSSES, LR_SCHEDULERS)


def check(cfg: Config) -> list[str]:
    """Every error of a config, each as `key.path: problem (file:line)`; empty if there is none."""
    checker = _Checker(cfg)
    try:
        load_components(cfg if _plugins_fit(cfg) else {})
    except UserError as error:
        checker.add("", str(error), "plugins")
    checker.rules()
    checker.section(cfg.data, SCHEMA, "")
    return checker.problems


def ensure(cfg: Config) -> None:
    """Raise one UserError that lists everything `check` finds."""
    problems = check(cfg)
    if problems:
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        raise UserError(f"{cfg.path}: {count}\n" + "\n".join(f"  - {p}" for p in problems))


def _plugins_fit(cfg: Mapping[str, Any]) -> bool:
    return misfit(cfg.get("plugins", ()), SCHEMA["plugins"].type) is None


def _join(path: str, key: Union[str, int]) -> str:
    return f"{path}.{key}" if path else str(key)


class _Checker:
    """Walks a config and collects `problems`."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.problems: list[str] = []

    def add(self, path: str, problem: str, origin_of: Optional[str] = None) -> None:
        head = f"{path}: " if path else ""
        self.problems.append(f"{head}{problem} ({self.cfg.origin(origin_of or path)})")

    def section(self, values: dict, keys: Mapping[str, Key], path: str) -> None:
        """A mapping with fixed keys."""
        for name in values:
            if name not in keys:
                self.add(_join(path, name), _unknown_key(name, keys, top_level=not path))
        for name, key in keys.items():
            if name in values:
                self.value(values[name], key, _join(path, name))
            elif key.default is REQUIRED:
                self.add(_join(path, name), f"is missing: {key.meaning}")

    def value(self, value: Any, key: Key, path: str) -> None:
        """The value of one schema key."""
        if value is None and key.default is None:
            return
        if key.registry is not None:
            self.components(value, key.registry, path, key.many)
        elif problem := misfit(value, key.type):
            self.add(path, problem)
        elif key.section is not None and isinstance(value, dict):
            self.section(value, key.section, path)
        elif key.rule is not None:
            numbers = value if isinstance(value, list) else [value]
            bad = [n for n in numbers if not isinstance(n, str) and not key.rule.holds(n)]
            if bad or not numbers:
                self.add(path, f"must be {key.rule.words}, found {bad[0] if bad else '[]'}")

    def components(self, value: Any, registry: Registry, path: str, many: bool) -> None:
        """One component, or a list of them."""
        if not many:
            self.component(value, registry, path)
        elif not isinstance(value, list):
            self.add(path, f"expected a list of mappings with `type`, found {quoted(value)}")
        else:
            for index, item in enumerate(value):
                self.component(item, registry, _join(path, index))

    def component(self, spec: Any, registry: Registry, path: str) -> None:
        """A mapping with `type` and the arguments of the constructor of that name."""
        if not isinstance(spec, dict):
            self.add(
                path, f"expected a mapping with a `type` of {registry.name}, found {quoted(spec)}"
            )
            return
        if "type" not in spec:
            known = ", ".join(sorted(registry))
            self.add(path, f"has no `type`; {registry.name} holds {known}")
            return
        if not _registered(spec, registry):
            self.add(_join(path, "type"), registry.miss(spec["type"]))
            return
        self.arguments(spec, registry, path)
        iters = self.cfg.get("iters")
        cheap = any(registry is one for one in _CHEAP)
        cheap = cheap and (registry is not LR_SCHEDULERS or _positive(iters))
        if cheap and not any(p.startswith((f"{path}.", f"{path}:")) for p in self.problems):
            try:
                build(with_measured(spec, UNMEASURED), registry, path, iters=iters)
            except UserError as error:
                self.add("", str(error), path)

    def arguments(self, spec: dict, registry: Registry, path: str) -> None:
        """Names and values of a component's arguments against its constructor."""
        component = registry[spec["type"]]
        known = parameters(component)
        hints = annotations(component)
        supplied = SUPPLIED.get(registry.name, {})
        for name, value in spec.items():
            here = _join(path, name)
            if name == "type":
                continue
            if name in supplied:
                self.add(here, f"is not given here: {supplied[name]}")
            elif name not in known:
                if not takes_anything(component):
                    self.add(here, self.unknown_argument(spec, name, known, path))
            elif value is None and known[name].default is None:
                continue
            elif name in NESTED:
                nested, many = NESTED[name]
                self.components(value, nested, here, many)
            elif registry is LOSSES and name == "weight" and is_scheme(value):
                continue  # resolved from the training set by build_losses
            elif problem := misfit(value, hints.get(name, Any)):
                self.add(here, problem)
        filled = {*spec, *supplied, *DERIVED.get(registry.name, ())}
        missing = [n for n, p in known.items() if p.default is p.empty and n not in filled]
        if missing:
            self.add(path, f"{spec['type']} needs {', '.join(missing)}")

    def unknown_argument(self, spec: dict, name: str, known: Mapping, path: str) -> str:
        near = nearest(name, list(known))
        hint = f"; did you mean {near!r}?" if near else ""
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        written = self.cfg.origin(_join(path, name)).rpartition(":")[0]
        if written != self.cfg.origin(_join(path, "type")).rpartition(":")[0]:
            hint += "; it is inherited: `_inherited_: false` beside the new `type` drops what is"
        return f"{spec['type']} has no argument {name!r} ({takes}){hint}"

    def rules(self) -> None:
        """What keys must be to each other; silent where one of them is wrong in itself."""
        cfg = self.cfg
        batch, total = cfg.get("batch_size"), cfg.get("total_batch_size")
        if _positive(batch) and _positive(total) and total % batch:
            self.add("total_batch_size", f"{total} is not a multiple of batch_size {batch}")
        self.loss_counts()
        self.class_counts()
        self.sliding_window()

    def loss_counts(self) -> None:
        loss = self.cfg.get("loss")
        types, coef = (loss.get(k) for k in ("types", "coef")) if isinstance(loss, dict) else (0, 0)
        if types == []:
            self.add("loss.types", "is empty; give one loss for all heads, or one each")
        elif isinstance(types, list) and isinstance(coef, list) and 1 < len(types) != len(coef):
            self.add("loss.coef", f"has {len(coef)} entries for {len(types)} loss.types")

    def class_counts(self) -> None:
        if not _registered(model := self.cfg.get("model"), MODELS):
            return
        counts = _class_counts(self.cfg)
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{key} has {n}" for key, n in counts.items())
            self.add(next(iter(counts)), f"numbers of classes differ: {told}")
        elif not counts and "num_classes" in parameters(MODELS[model["type"]]):
            self.add("model", "the datasets don't tell the number of classes; give num_classes")
        elif counts:
            self.weight_counts(self.cfg.get("loss"), "loss", next(iter(counts.values())))

    def weight_counts(self, spec: Any, path: str, classes: int) -> None:
        items = enumerate(spec) if isinstance(spec, list) else ()
        for key, value in spec.items() if isinstance(spec, dict) else items:
            here = _join(path, key)
            if key == "weight" and isinstance(value, list) and len(value) != classes:
                self.add(here, f"has {len(value)} entries for {classes} classes")
            self.weight_counts(value, here, classes)

    def sliding_window(self) -> None:
        test = self.cfg.get("test_config")
        if not isinstance(test, dict) or test.get("is_slide") is not True:
            return
        crop, stride = test.get("crop_size"), test.get("stride")
        for name, size in (("crop_size", crop), ("stride", stride)):
            if size is None:
                self.add(f"test_config.{name}", "is_slide needs it: [w, h]", "test_config.is_slide")
        size = SCHEMA["test_config"].section["crop_size"].type
        sizes_fit = crop and stride and not misfit(crop, size) and not misfit(stride, size)
        if sizes_fit and (stride[0] > crop[0] or stride[1] > crop[1]):
            self.add("test_config.stride", f"{stride} leaves gaps between windows of {crop}")


def _registered(spec: Any, registry: Registry) -> bool:
    name = spec.get("type") if isinstance(spec, Mapping) else None
    return isinstance(name, str) and name in registry


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _unknown_key(name: str, keys: Mapping[str, Key], top_level: bool) -> str:
    if top_level and name in FOREIGN:
        return FOREIGN[name]
    near = nearest(name, list(keys))
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(keys)}"
    return f"is not a known key; {hint}"


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
    counts = _class_counts(cfg)
    if len(set(counts.values())) > 1:
        raise UserError(f"numbers of classes differ: {counts}")
    derived = {"num_classes": next(iter(counts.values()))} if counts else {}
    return build(cfg["model"], MODELS, "model", **derived)


def _class_counts(cfg: Mapping[str, Any]) -> dict[str, int]:
    """The number of classes, by each key that tells it."""
    model = cfg.get("model")
    counts = {"model.num_classes": model.get("num_classes") if isinstance(model, dict) else None}
    for key in ("train_dataset", "val_dataset", "test_dataset"):
        names = _of_dataset(cfg.get(key), "CLASSES")
        counts[key] = len(names) if names else _of_dataset(cfg.get(key), "num_classes")
    return {key: count for key, count in counts.items() if _positive(count)}


def _of_dataset(spec: Any, name: str) -> Any:
    """What a dataset's mapping gives as `name`, else its class, else its constructor's default."""
    if not _registered(spec, DATASETS):
        return None
    component = DATASETS[spec["type"]]
    if name in spec or hasattr(component, name):
        return spec.get(name, getattr(component, name, None))
    parameter = parameters(component).get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


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
    ignore = _of_dataset(cfg.get("train_dataset"), "ignore_index")
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
