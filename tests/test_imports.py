"""Which package may import which (the table in liteseg/README.md), read with ast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "liteseg"
COMPONENTS = {"models", "losses", "datasets", "transforms"}
# unit (a package or module right below liteseg) -> units it may import, besides itself
RULES: dict[str, set[str]] = {
    "errors": set(),
    "registry": {"errors"},
    "metrics": {"errors"},
    "utils": {"errors"},
    "ops": {"errors", "utils"},
    "config": {"errors", "registry", "utils"},
    **{unit: {"errors", "ops", "registry", "utils"} for unit in COMPONENTS},
    "datasets": {"errors", "ops", "registry", "utils", "transforms"},
    "engine": {"errors", "metrics", "ops", "registry", "utils"},
    "deploy": {"errors", "metrics", "ops", "utils"},
    "report": {"errors", "metrics", "utils"},
    "doctor": {"errors", "ops", "utils"},
    "cli": {"config", "errors", "tasks", "doctor", "utils"},
    "__init__": {"config", "engine", "errors", "metrics", "ops", "tasks"},
    "__main__": {"cli"},
}
EVERYTHING = {"tasks"}  # where all is joined
# Paddle takes seconds to load, so what runs before it must not pull it in.
NO_PADDLE_AT_IMPORT = [
    *("__init__", "errors", "registry", "metrics", "transforms/functional"),
    *(f"config/{path.stem}" for path in (PACKAGE / "config").glob("*.py")),
]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def _unit(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def _modules(node: ast.AST) -> list[str]:
    """Full names a statement imports; `from liteseg import x` counts as liteseg.x."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
        if node.module == "liteseg":
            return [f"liteseg.{alias.name}" for alias in node.names]
        return [node.module]
    return []


def _imports(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(node.lineno, name) for node in ast.walk(tree) for name in _modules(node)]


def breaches(path: Path) -> list[str]:
    unit = _unit(path)
    if unit in EVERYTHING:
        return []
    if unit not in RULES:
        return [f"{unit}: no import rule for it; add one"]
    found = []
    for line, name in _imports(path):
        root, _, rest = name.partition(".")
        target = rest.split(".")[0]
        # `liteseg` itself and its constants (`from liteseg import __version__`) are free
        free = root != "liteseg" or not target or target.startswith("__")
        if not free and target not in {unit, *RULES[unit]}:
            found.append(f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers(path):
    assert breaches(path) == []


def test_the_rule_notices_a_breach(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "engine").mkdir()
    source = tmp_path / "engine" / "x.py"
    source.write_text(
        "import liteseg\nfrom liteseg import __version__, config\n"
        "def f():\n    from liteseg.cli import main\nfrom liteseg.utils import y\n"
    )
    assert [b.rsplit(" ", 1)[1] for b in breaches(source)] == [
        "liteseg.config",
        "liteseg.cli",
    ]


def test_every_unit_of_the_rules_is_real():
    assert {_unit(path) for path in SOURCES} <= set(RULES) | EVERYTHING


@pytest.mark.parametrize("name", NO_PADDLE_AT_IMPORT)
def test_no_paddle_at_the_top(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    top = [module for node in tree.body for module in _modules(node)]
    assert not [module for module in top if module.split(".")[0] == "paddle"]


def test_reading_a_config_does_not_load_paddle():
    code = (
        "import sys, liteseg; liteseg.load_config('quickstart'); import liteseg.cli.config;"
        "assert 'paddle' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_no_wildcard_imports():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), path
