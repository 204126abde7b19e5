"""Checked configs: every error of a config at once, without reading its data, then the defaults.

Keys are compared with the schema and arguments with the constructors' signatures. Cheap components
(transforms, losses, schedules) are constructed, so that their own checks run as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from liteseg.config.component import (
    UNMEASURED,
    accepts_any_argument,
    argument_types,
    build,
    dataset_attribute,
    dataset_bands,
    given_argument,
    is_registered,
    is_scheme,
    label_values,
    parameters,
    parts_to_leave,
    with_measured,
)
from liteseg.config.defaults import intervals, with_defaults
from liteseg.config.keys import REQUIRED, Key, keys_of, type_error
from liteseg.config.load import Config, load_config
from liteseg.config.plugins import load_components, load_plugins
from liteseg.config.schema import (
    DERIVED,
    ELSEWHERE,
    FOREIGN,
    INNER_DATASET,
    NESTED,
    SCHEMA,
    SUPPLIED,
    CheckedConfig,
)
from liteseg.errors import UserError, quoted
from liteseg.registry import (
    BACKBONES,
    LOSSES,
    LR_SCHEDULERS,
    MODELS,
    TRANSFORMS,
    Registry,
    nearest,
)

AnyConfig = Union[str, Path, Config, CheckedConfig]

_CHEAP = (TRANSFORMS, LOSSES, LR_SCHEDULERS)


def load_checked(
    cfg: AnyConfig, overrides: Sequence[str] = (), built: Optional[Sequence[str]] = None
) -> CheckedConfig:
    """Load a config, apply `a.b.c=value` overrides, check everything and fill in the defaults.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config.
        overrides: changes of values, in order.
        built: as for `checked`.

    Raises:
        UserError: the file or an override cannot be used, or the config has errors (all of them
            are listed, with file and line).
    """
    if isinstance(cfg, (str, Path)):
        cfg = load_config(cfg, overrides)
    elif overrides:
        cfg = (cfg.source if isinstance(cfg, CheckedConfig) else cfg).changed(overrides)
    return checked(cfg, built)


def checked(
    cfg: Union[Config, CheckedConfig], built: Optional[Sequence[str]] = None
) -> CheckedConfig:
    """The checked form of a config, with its plugins loaded.

    Args:
        cfg: a config.
        built: for inference: keys with components to build, next to the model and the validation
            transforms. Plugins are then loaded only if these need them.

    Raises:
        UserError: lists every error that `check` finds.
    """
    if isinstance(cfg, CheckedConfig):
        return cfg
    if problems := check(cfg, built):
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        raise UserError(f"{cfg.path}: {count}\n" + "\n".join(f"  - {p}" for p in problems))
    given = cfg.data
    for name, default in intervals(given).items():
        given[name] = default if given.get(name) is None else given[name]
    values = {name: key.resolve(given[name]) for name, key in SCHEMA.items() if name in given}
    return CheckedConfig(**values, source=with_defaults(cfg))


def check(cfg: Config, built: Optional[Sequence[str]] = None) -> list[str]:
    """Every error of a config, each as `key.path: problem (file:line)`; empty if there is none."""
    load_components()
    checker = _Checker(cfg, () if built is None else parts_to_leave(cfg, built))
    try:
        if not checker.left:
            load_plugins(cfg)
    except UserError as error:
        checker.add("", str(error), "plugins")
    checker.rules()
    checker.section(cfg.data, SCHEMA, "")
    for key in ("train_dataset", "val_dataset", "test_dataset"):
        checker.transforms(cfg.get(key), key)
    return checker.problems


def _join(path: str, key: Union[str, int]) -> str:
    return f"{path}.{key}" if path else str(key)


class _Checker:
    """Walks a config and collects `problems`."""

    def __init__(self, cfg: Config, left: Sequence[str] = ()):
        self.cfg = cfg
        self.left = left  # keys whose components may be those of plugins that are not loaded
        self.problems: list[str] = []
        self.built: dict[str, Any] = {}  # cheap components by path

    def add(self, path: str, problem: str, origin_of: Optional[str] = None) -> None:
        head = f"{path}: " if path else ""
        self.problems.append(f"{head}{problem} ({self.cfg.origin(origin_of or path)})")

    def section(self, values: dict, keys: Mapping[str, Key], path: str) -> None:
        """Check a mapping with fixed keys."""
        for name in values:
            if name not in keys:
                self.add(_join(path, name), _unknown_key(name, keys, top_level=not path))
        for name, key in keys.items():
            if name in values:
                self.value(values[name], key, _join(path, name))
            elif key.default is REQUIRED:
                self.add(_join(path, name), f"is missing: {key.meaning}")

    def value(self, value: Any, key: Key, path: str) -> None:
        """Check the value of one schema key."""
        if value is None and key.default is None:
            return
        if key.registry is not None:
            self.components(value, key.registry, path, key.many)
        elif problem := key.problem(value):
            self.add(path, problem)
        elif key.section is not None and isinstance(value, dict):
            before = len(self.problems)
            self.section(value, keys_of(key.section), path)
            conflicts = getattr(key.section, "conflicts", None)
            if conflicts and len(self.problems) == before:
                for name, problem in conflicts(value):
                    self.add(_join(path, name), problem)

    def components(self, value: Any, registry: Registry, path: str, many: bool) -> None:
        """Check one component, or a list of them."""
        if not many:
            self.component(value, registry, path)
        elif not isinstance(value, list):
            self.add(path, f"expected a list of mappings with `type`, found {quoted(value)}")
        else:
            for index, item in enumerate(value):
                self.component(item, registry, _join(path, index))

    def component(self, spec: Any, registry: Registry, path: str) -> None:
        """Check a mapping with `type` and the arguments of the constructor of that name."""
        if not isinstance(spec, dict):
            self.add(
                path, f"expected a mapping with a `type` of {registry.name}, found {quoted(spec)}"
            )
            return
        if "type" not in spec:
            known = ", ".join(sorted(registry))
            self.add(path, f"has no `type`; {registry.name} contains {known}")
            return
        left = path.partition(".")[0] in self.left
        if not is_registered(spec, registry):
            if not left:
                self.add(_join(path, "type"), registry.missing_message(spec["type"]))
            return
        self.arguments(spec, registry, path)
        iters = self.cfg.get("iters")
        cheap = not left and any(registry is one for one in _CHEAP)
        cheap = cheap and (registry is not LR_SCHEDULERS or _is_positive(iters))
        if cheap and not any(p.startswith((f"{path}.", f"{path}:")) for p in self.problems):
            try:
                spec = with_measured(spec, UNMEASURED)
                self.built[path] = build(spec, registry, path, iters=iters)
            except UserError as error:
                self.add("", str(error), path)

    def arguments(self, spec: dict, registry: Registry, path: str) -> None:
        """Check a component's arguments against its constructor."""
        component = registry[spec["type"]]
        known = parameters(component)
        hints = argument_types(component)
        supplied = SUPPLIED.get(registry.name, {})
        for name, value in spec.items():
            here = _join(path, name)
            if name == "type":
                continue
            if name in supplied:
                self.add(here, f"must not be given here: {supplied[name]}")
            elif name not in known:
                if not accepts_any_argument(component):
                    self.add(here, self.unknown_argument(spec, name, known, registry, path))
            elif value is None and known[name].default is None:
                continue
            elif name in NESTED:
                nested, many = NESTED[name]
                self.components(value, nested, here, many)
            elif registry is LOSSES and name == "weight" and is_scheme(value):
                continue  # resolved from the training set by build_losses
            elif problem := type_error(value, hints.get(name, Any)):
                self.add(here, problem)
        inner = INNER_DATASET if ".datasets." in path else ()
        filled = {*spec, *supplied, *DERIVED.get(registry.name, ()), *inner}
        missing = [n for n, p in known.items() if p.default is p.empty and n not in filled]
        if missing:
            self.add(path, f"{spec['type']} needs {', '.join(missing)}")

    def unknown_argument(
        self, spec: dict, name: str, known: Mapping, registry: Registry, path: str
    ) -> str:
        if name in ELSEWHERE:
            return f"{spec['type']} has no argument {name!r}; {ELSEWHERE[name]}"
        near = nearest(name, list(known))
        hint = f"; did you mean {near!r}?" if near else ""
        arguments = f"it takes {', '.join(known)}" if known else "it takes none"
        written, chosen = (
            self.cfg.origin(_join(path, key)).rpartition(":")[0] for key in (name, "type")
        )
        # Of the type before: --set has no line, so its origin has no file.
        if written and written != chosen and any(name in parameters(c) for c in registry.values()):
            hint += "; it is inherited: `_inherited_: false` next to the new `type` drops it"
        return f"{spec['type']} has no argument {name!r} ({arguments}){hint}"

    def transforms(self, dataset: Any, key: str) -> None:
        """Check the transforms of a dataset: `Normalize` at the end, and fixed ones to evaluate."""
        path = f"{key}.transforms"
        specs = dataset.get("transforms") if isinstance(dataset, dict) else None
        built = (
            [self.built.get(_join(path, i)) for i in range(len(specs))]
            if isinstance(specs, list)
            else []
        )
        if not isinstance(specs, list) or None in built:
            return  # reported already, or the dataset has its own
        normalize: Any = TRANSFORMS["Normalize"]
        places = [i for i, one in enumerate(built) if isinstance(one, normalize)]
        if places != [len(built) - 1]:
            found = ", ".join(spec["type"] for spec in specs) or "none"
            self.add(path, f"must end in Normalize, and have only one; found {found}")
        classes, ignored = label_values(dataset)
        transform: Any
        for index, transform in enumerate(built):
            here = _join(path, index)
            name = specs[index]["type"]
            if key != "train_dataset" and getattr(transform, "random", False):
                self.add(here, f"{name} is random, and evaluation needs fixed images; remove it")
            elif key != "train_dataset" and getattr(transform, "keeps_geometry", None) is False:
                self.add(here, f"{name} moves pixels away from their labels; remove it")
            if classes and hasattr(transform, "follow_labels"):
                try:
                    transform.follow_labels(classes, ignored)
                except ValueError as error:
                    self.add(here, str(error))

    def rules(self) -> None:
        """Check keys against each other, where each is valid alone."""
        batch: Any = self.cfg.get("batch_size")
        total: Any = self.cfg.get("total_batch_size")
        if _is_positive(batch) and _is_positive(total) and total % batch:
            self.add("total_batch_size", f"{total} is not a multiple of batch_size {batch}")
        if self.cfg.get("deterministic") is self.cfg.get("cudnn_exhaustive_search") is True:
            self.add(
                "cudnn_exhaustive_search",
                "true, and so is deterministic: algorithms selected by time differ between runs; "
                "set one of them to false",
            )
        self.number_of_losses()
        self.number_of_classes()
        self.number_of_channels()
        self.ignored_label()
        early_stop = self.cfg.get("early_stop")
        if isinstance(early_stop, dict) and early_stop and not self.cfg.get("val_dataset"):
            self.add("early_stop", "needs a val_dataset: it watches the validation mIoU")

    def ignored_label(self) -> None:
        """The datasets and the losses must ignore the same label value."""
        keys = ("train_dataset", "val_dataset", "test_dataset")
        found = {f"{key}.ignore_index": label_values(self.cfg.get(key))[1] for key in keys}
        found = {key: value for key, value in found.items() if value is not None}
        expected = next(iter(found.values()), None)
        for key, value in found.items():
            if value != expected:
                self.add(key, f"is {value}, expected {expected} as in {next(iter(found))}")
        for here, value in _entries(self.cfg.get("loss"), "loss"):
            if expected is not None and here.endswith(".ignore_index") and value != expected:
                self.add(here, f"is {value}, expected the {expected} of the dataset (leave it out)")

    def number_of_losses(self) -> None:
        loss = self.cfg.get("loss")
        types, coef = (loss.get(k) for k in ("types", "coef")) if isinstance(loss, dict) else (0, 0)
        if types == []:
            self.add("loss.types", "is empty; give one loss for all heads, or one per head")
        elif isinstance(types, list) and isinstance(coef, list) and 1 < len(types) != len(coef):
            self.add("loss.coef", f"has {len(coef)} entries for {len(types)} loss.types")
        else:
            levels = given_argument(self.cfg.get("model"), MODELS, "backbone_indices")
            heads = len(levels) if isinstance(levels, (list, tuple)) else None
            for name, given in (("types", types), ("coef", coef)):
                if heads and isinstance(given, list) and len(given) not in (1, heads):
                    self.add(
                        f"loss.{name}",
                        f"has {len(given)} entries for {heads} heads; give 1 or {heads}",
                    )

    def number_of_channels(self) -> None:
        """The backbone must have as many input channels as the datasets have bands."""
        model: Any = self.cfg.get("model")
        backbone = model.get("backbone") if isinstance(model, dict) else None
        expected = given_argument(backbone, BACKBONES, "in_channels")
        for key in ("train_dataset", "val_dataset", "test_dataset"):
            try:
                found = len(dataset_bands(self.cfg.get(key)) or "RGB")
            except (UserError, TypeError) as error:
                self.add(key, str(error))
                continue
            if expected is not None and self.cfg.get(key) and found != expected:
                fix = f"expected {expected} as model.backbone.in_channels; set that to {found}"
                if found == 3:
                    fix += ", or `channels` of the dataset to the bands of the files"
                self.add(key, f"has images of {found} channels, {fix}")

    def number_of_classes(self) -> None:
        model: Any = self.cfg.get("model")
        if not is_registered(model, MODELS):
            return
        counts = num_classes_by_key(self.cfg)
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{key} has {n}" for key, n in counts.items())
            self.add(next(iter(counts)), f"numbers of classes differ: {found}")
        elif not counts and "num_classes" in parameters(MODELS[model["type"]]):
            self.add("model", "num_classes is missing, and the datasets do not define it")
        elif counts:
            key, classes = next(iter(counts.items()))
            for here, value in _entries(self.cfg.get("loss"), "loss"):
                if here.endswith(".weight") and isinstance(value, list) and len(value) != classes:
                    self.add(here, f"has {len(value)} entries for {classes} classes")
            if classes == 1:
                self.add(
                    key,
                    "1 class: every pixel is right by definition; give 2, background 0 and "
                    "foreground 1",
                )
            elif classes > 255:
                self.add(key, f"{classes}, expected 2 to 255 (labels are 8-bit)")


def _entries(spec: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(key path, value) of everything in a mapping or list."""
    items = enumerate(spec) if isinstance(spec, list) else ()
    for key, value in spec.items() if isinstance(spec, dict) else items:
        yield _join(path, key), value
        yield from _entries(value, _join(path, key))


def _unknown_key(name: str, keys: Mapping[str, Key], top_level: bool) -> str:
    if top_level and name in FOREIGN:
        return FOREIGN[name]
    near = nearest(name, list(keys))
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(keys)}"
    return f"is not a known key; {hint}"


def num_classes_by_key(cfg: Mapping[str, Any]) -> dict[str, int]:
    """The number of classes that the model and each dataset define, by key."""
    model = cfg.get("model")
    found: dict[str, Any] = {
        "model.num_classes": model.get("num_classes") if isinstance(model, dict) else None
    }
    for key in ("train_dataset", "val_dataset", "test_dataset"):
        names = dataset_attribute(cfg.get(key), "CLASSES")
        found[key] = len(names) if names else dataset_attribute(cfg.get(key), "num_classes")
    return {key: number for key, number in found.items() if _is_positive(number)}


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
