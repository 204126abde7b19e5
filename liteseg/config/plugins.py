"""Registration: importing liteseg's own components, and the user's Python files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from liteseg.errors import UserError

OWN = ("models", "losses", "datasets", "transforms", "engine.optim")

_PREFIX = "liteseg_plugin:"  # of the plugins' module names; the path follows


def load_components(cfg: Mapping[str, Any]) -> None:
    """Register liteseg's own components and those of the config's `plugins`, once a process.

    Raises:
        UserError: a plugin is missing or fails; with its file and line.
    """
    for package in OWN:
        importlib.import_module(f"liteseg.{package}")
    for plugin in cfg.get("plugins") or ():
        _load_plugin(plugin)


def _load_plugin(plugin: str) -> None:
    path = Path(os.path.expanduser(plugin))
    if not os.path.isfile(path):
        where = os.path.abspath(path)
        raise UserError(
            f"plugins: {plugin} is no file (looked at {where}, from the current folder)"
        )
    path = path.resolve()
    name = f"{_PREFIX}{path}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugins: {plugin} is not a Python file (*.py)")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", 1)
        raise UserError(f"plugins: {plugin}:{line}: {type(error).__name__}: {error}") from error


def blame(error: BaseException) -> Optional[str]:
    """`file:line: error` if the code of a plugin raised it; None if liteseg's own did.

    What a library raised counts for whoever called it.
    """
    calls = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    # An exception of a reader process comes as the text of its traceback.
    text = str(error)
    told = re.findall(r'^ *File "(.+)", line (\d+), in', text, re.MULTILINE)
    plugins = {name[len(_PREFIX) :] for name in sys.modules if name.startswith(_PREFIX)}
    own = str(Path(__file__).resolve().parents[1])
    known = [call for call in [*calls, *told] if call[0] in plugins or call[0].startswith(own)]
    if not known or known[-1][0] not in plugins:
        return None
    said = text.strip().splitlines()[-1] if told else f"{type(error).__name__}: {text}"
    return f"{known[-1][0]}:{known[-1][1]}: {said}"
