"""Which package may import which (the table in liteseg/README.md), and how large code may grow.

Everything is read from the source with ast: imports at the top and inside functions, and modules
that are named in strings (`importlib`, `python -m`, code of child processes).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
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
    "engine": {"errors", "metrics", "ops", "utils"},
    "deploy": {"errors", "metrics", "ops", "utils"},
    "report": {"errors", "metrics", "utils"},
    "doctor": {"errors", "ops", "utils"},
    "tasks": {
        *("config", "errors", "metrics", "registry", "utils", "ops"),
        *("engine", "deploy", "report", *COMPONENTS),
    },
    "cli": {"config", "errors", "tasks", "doctor", "utils"},
    "__init__": {"config", "engine", "errors", "metrics", "ops", "tasks", "utils"},
    "__main__": {"cli"},
}
EXCEPTIONS = {
    "engine/optim.py": {"registry"},  # optimizers and schedules are components
    "config/plugins.py": {*COMPONENTS, "engine"},  # imports the components by name to register them
    "doctor/packages.py": {"config"},  # its child process imports what a training imports
}
# Paddle takes seconds to load, so what runs before it must not pull it in.
NO_PADDLE_AT_IMPORT = [
    *("__init__", "errors", "registry", "transforms/functional"),
    *(f"metrics/{path.stem}" for path in (PACKAGE / "metrics").glob("*.py")),
    *(f"config/{path.stem}" for path in (PACKAGE / "config").glob("*.py")),
]
SOURCES = sorted(PACKAGE.rglob("*.py"))
FILE_LINES, CLI_FILE_LINES, FUNCTION_LINES = 400, 150, 60


def _unit(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _modules(node: ast.AST) -> list[str]:
    """Full names a statement imports; `from liteseg import x` counts as liteseg.x."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
        if node.module == "liteseg":
            return [f"liteseg.{alias.name}" for alias in node.names]
        return [node.module or ""]
    return []


def _docstrings(tree: ast.AST) -> set[ast.AST]:
    """The string constants of a source that are statements: no program uses them."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _named(text: str) -> Iterator[str]:
    """The modules of liteseg that a string names."""
    for name in re.findall(r"\bliteseg(?:\.\w+)+", text):
        parts = name.split(".")[1:]
        if (PACKAGE / parts[0]).is_dir() or (PACKAGE / f"{parts[0]}.py").is_file():
            yield name


def _imports(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = _docstrings(tree)
    found = []
    for node in ast.walk(tree):
        found += [(getattr(node, "lineno", 0), name) for name in _modules(node)]
        if isinstance(node, ast.Constant) and node not in docstrings:
            text = node.value if isinstance(node.value, str) else ""
            found += [(node.lineno, name) for name in _named(text)]
    return found


def _composed(path: Path) -> list[int]:
    """Lines with an f-string such as f"liteseg.{name}", whose module is not visible here."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) and node.values)
    return [
        node.lineno
        for node in strings
        if isinstance(node.values[0], ast.Constant) and node.values[0].value == "liteseg."
    ]


def breaches(path: Path) -> list[str]:
    unit, file = _unit(path), path.relative_to(PACKAGE).as_posix()
    if unit not in RULES:
        return [f"{unit}: no import rule for it; add one"]
    allowed = {unit, *RULES[unit], *EXCEPTIONS.get(file, ())}
    found = []
    for line, name in _imports(path):
        root, _, rest = name.partition(".")
        target = rest.split(".")[0]
        # `liteseg` itself and its constants (`from liteseg import __version__`) are free
        free = root != "liteseg" or not target or target.startswith("__")
        if not free and target not in allowed:
            found.append(f"liteseg/{file}:{line} imports {name}")
    if file != "config/plugins.py":
        found += [f"liteseg/{file}:{line} imports liteseg.*" for line in _composed(path)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers(path):
    assert breaches(path) == []


def test_breaches_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    for unit in ("engine", "config", "cli", "utils", "tasks"):
        (tmp_path / unit).mkdir()
    source = tmp_path / "engine" / "x.py"
    source.write_text(
        '"""As in `liteseg.cli`."""\n'
        "import liteseg\nfrom liteseg import __version__, config\n"
        "def f():\n    from liteseg.cli import main\nfrom liteseg.utils import y\n"
        'import_module("liteseg.tasks.train")\n'
        'COMMAND = ["-c", "import liteseg.cli; print(1)"]\n'
        'FILE, LATER = "liteseg.json", f"liteseg.{name}"\n'
    )
    assert sorted(b.rsplit(" ", 1)[1] for b in breaches(source)) == [
        "liteseg.*",
        "liteseg.cli",
        "liteseg.cli",
        "liteseg.config",
        "liteseg.tasks.train",
    ]


def test_every_rule_is_about_something():
    assert {_unit(path) for path in SOURCES} == set(RULES)
    assert all((PACKAGE / file).is_file() for file in EXCEPTIONS)


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


def test_no_file_is_too_long():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    limits = {path: CLI_FILE_LINES if _unit(path) == "cli" else FILE_LINES for path in SOURCES}
    assert {str(path): n for path, n in lengths.items() if n > limits[path]} == {}


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines of the body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_function_is_longer_than_a_screen():
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and _code_lines(node) > FUNCTION_LINES:
                found[f"{path}: {node.name}"] = _code_lines(node)
    assert found == {}
