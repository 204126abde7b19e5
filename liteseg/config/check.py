"""Every error of a config at once, without its data.

Keys are compared with the schema, arguments with the constructors' signatures; what is cheap
(transforms, losses, schedules) is constructed, so that its own checks speak too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, Union

from liteseg.config.build import build, class_counts, is_positive, is_registered
from liteseg.config.class_weights import UNMEASURED, is_scheme, with_measured
from liteseg.config.load import Config
from liteseg.config.plugins import load_components
from liteseg.config.schema import DERIVED, FOREIGN, NESTED, REQUIRED, SCHEMA, SUPPLIED, Key
from liteseg.config.signature import annotations, misfit, parameters, takes_anything
from liteseg.errors import UserError, quoted
from liteseg.registry import LOSSES, LR_SCHEDULERS, MODELS, TRANSFORMS, Registry, nearest

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
        if not is_registered(spec, registry):
            self.add(_join(path, "type"), registry.miss(spec["type"]))
            return
        self.arguments(spec, registry, path)
        iters = self.cfg.get("iters")
        cheap = any(registry is one for one in _CHEAP)
        cheap = cheap and (registry is not LR_SCHEDULERS or is_positive(iters))
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
        if is_positive(batch) and is_positive(total) and total % batch:
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
        if not is_registered(model := self.cfg.get("model"), MODELS):
            return
        counts = class_counts(self.cfg)
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


def _unknown_key(name: str, keys: Mapping[str, Key], top_level: bool) -> str:
    if top_level and name in FOREIGN:
        return FOREIGN[name]
    near = nearest(name, list(keys))
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(keys)}"
    return f"is not a known key; {hint}"
