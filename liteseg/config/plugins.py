"""Registration of components: liteseg's own and those of the user's Python files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from liteseg.errors import UserError
from liteseg.utils.logging import get_logger

OWN = ("models", "losses", "datasets", "transforms", "engine.optim")

_PREFIX = "liteseg_plugin:"  # of the plugins' module names; the path follows


def load_components(plugins: Sequence[str] = ()) -> None:
    """Register liteseg's own components and those of plugin files, once per process.

    Raises:
        UserError: a plugin is missing or fails; with its file and line.
    """
    for package in OWN:
        importlib.import_module(f"liteseg.{package}")
    for plugin in plugins or ():
        _load_plugin(plugin)


def _load_plugin(plugin: str) -> None:
    path = Path(os.path.expanduser(plugin))
    if not os.path.isfile(path):
        where = os.path.abspath(path)
        raise UserError(
            f"plugins: {plugin} does not exist (looked for {where}; paths are relative to the "
            "current folder)"
        )
    path = path.resolve()
    name = f"{_PREFIX}{path}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path) if path.suffix == ".py" else None
    if spec is None or spec.loader is None:
        raise UserError(f"plugins: {plugin} is not a Python file (*.py)")
    get_logger().info(f"plugins: running {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", 1)
        raise UserError(f"plugins: {plugin}:{line}: {type(error).__name__}: {error}") from error


def plugin_location(error: BaseException) -> Optional[str]:
    """`file:line: error` if the code of a plugin raised it; None if liteseg's own did.

    An error raised in a library counts for the code that called it.
    """
    calls = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    # A worker process's exception arrives as the text of its traceback.
    text = str(error)
    reported = re.findall(r'^ *File "(.+)", line (\d+), in', text, re.MULTILINE)
    plugins = {name[len(_PREFIX) :] for name in sys.modules if name.startswith(_PREFIX)}
    own = str(Path(__file__).resolve().parents[1])
    known = [call for call in [*calls, *reported] if call[0] in plugins or call[0].startswith(own)]
    if not known or known[-1][0] not in plugins:
        return None
    message = text.strip().splitlines()[-1] if reported else f"{type(error).__name__}: {text}"
    return f"{known[-1][0]}:{known[-1][1]}: {message}"
