"""The documents, their code blocks, and the tables in them that are generated from the code.

python tests/docs/documents.py     write the generated tables into the documents
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    "README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
    "configs/README.md",
    "liteseg/README.md",
    "liteseg/datasets/README.md",
    "liteseg/deploy/README.md",
    "liteseg/metrics/README.md",
    "scripts/bench/README.md",
    "scripts/cluster/README.md",
)


def text_of(name: str) -> str:
    """The text of a document."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str = r"\w*") -> list[str]:
    """The code blocks of a document, of one language or all."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), re.DOTALL | re.MULTILINE)


def block(name: str, start: str) -> str:
    """The code block whose first line begins with `start`."""
    (found,) = (code for code in blocks(name) if code.startswith(start))
    return found


def section(name: str, heading: str) -> str:
    """The text between `## heading` and the next heading of that level."""
    return text_of(name).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def keys() -> str:
    """Every config key with its default and meaning."""
    from liteseg.config.keys import REQUIRED, keys_of
    from liteseg.config.schema import SCHEMA

    def rows(schema, prefix=""):
        for name, key in schema.items():
            default = f"`{str(key.default).lower()}`"
            if key.default is REQUIRED:
                default = "required"
            elif key.default is None or key.default in ({}, ()):
                default = "none"
            elif key.section is not None:
                default = "off"
            elif isinstance(key.default, str):
                default = f"`{key.default}`"
            yield f"`{prefix}{name}`", default, key.meaning
            if key.section is not None:
                yield from rows(keys_of(key.section), f"{prefix}{name}.")

    return _table(("key", "default", "meaning"), rows(SCHEMA))


def components() -> str:
    """Every registered component with its arguments."""
    from liteseg import registry
    from liteseg.config.plugins import load_components
    from liteseg.config.schema import SUPPLIED

    load_components()

    def rows():
        for name in ("MODELS", "BACKBONES", "LOSSES", "DATASETS", "TRANSFORMS"):
            yield from of(getattr(registry, name))
        yield from of(registry.OPTIMIZERS)
        yield from of(registry.LR_SCHEDULERS)

    def of(components):
        names: dict[object, list[str]] = {}
        for name, component in components.items():
            if not component.__module__.startswith("liteseg_plugin:"):
                names.setdefault(component, []).append(f"`{name}`")
        for component, aliases in names.items():
            arguments = [
                _argument(parameter)
                for parameter in inspect.signature(component).parameters.values()
                if parameter.name not in SUPPLIED.get(components.name, {})
            ]
            summary = " ".join(inspect.getdoc(component).partition("\n\n")[0].split())
            yield components.name, ", ".join(aliases), summary, ", ".join(arguments)

    return _table(("registry", "`type`", "description", "arguments"), rows())


def _argument(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is parameter.empty:
        return f"`{parameter.name}`"
    if default is None or isinstance(default, bool):
        value = {None: "null", True: "true", False: "false"}[default]
    elif isinstance(default, str):
        value = default or "''" if default.strip() else f"'{default}'"
    elif isinstance(default, tuple):
        value = f"[{', '.join(map(str, default))}]"
    else:
        value = f"{default:g}" if default > 1e6 else str(default)
    return f"`{parameter.name}: {value}`"


def imports() -> str:
    """Which package may import which (the rules of tests/test_imports.py)."""
    from test_imports import RULES

    merged: dict[tuple[str, ...], list[str]] = {}
    for unit, allowed in RULES.items():
        if not unit.startswith("__"):
            merged.setdefault(tuple(sorted(allowed)), []).append(unit)
    rows = sorted(merged.items(), key=lambda item: (len(item[0]), item))
    return _table(
        ("package", "may import"),
        [(_listed(sorted(units)), _listed(allowed) or "–") for allowed, units in rows],
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def manifest() -> str:
    """The fields of `liteseg.json`, from the docstring of `Manifest`."""
    from liteseg.deploy.manifest import Manifest

    doc = inspect.getdoc(Manifest).partition("Attributes:\n")[2]
    meanings = dict(re.findall(r"^    (\w+): ((?:.|\n     )+)$", doc, re.MULTILINE))
    rows = (
        (f"`{field.name}`", " ".join(meanings[field.name].split()))
        for field in dataclasses.fields(Manifest)
    )
    return _table(("field", "content"), rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [heads, ["---"] * len(tuple(heads)), *rows]
    lines = [f"| {' | '.join(cells)} |" for cells in lines]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines)


# document -> {marker: its table}; a marker is the line `<!-- marker -->`, the table follows
GENERATED = {
    "configs/README.md": {"keys": keys, "components": components},
    "liteseg/README.md": {"imports": imports},
    "liteseg/deploy/README.md": {"manifest": manifest},
}


def with_tables(name: str) -> str:
    """The text of a document with its generated tables as the code has them now."""
    text = text_of(name)
    for marker, table in GENERATED[name].items():
        head, line, rest = text.partition(f"<!-- {marker} -->\n\n")
        assert line, f"{name}: no line <!-- {marker} -->"
        rest = re.sub(r"\A(\|.*\n)*\n?", "", rest)
        text = f"{head}{line}{table()}\n\n{rest}"
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    for document in GENERATED:
        (ROOT / document).write_text(with_tables(document), encoding="utf-8")
