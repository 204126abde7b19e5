"""Registration of components: liteseg's own and those of the user's Python files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from liteseg import registry
from liteseg.errors import UserError
from liteseg.utils.files import atomic_write
from liteseg.utils.logging import get_logger

if TYPE_CHECKING:
    from liteseg.config.load import Config

OWN = ("models", "losses", "datasets", "transforms", "engine.optim")

_PREFIX = "liteseg_plugin:"  # of the plugins' module names; the path follows
_REGISTRIES = [one for one in vars(registry).values() if isinstance(one, registry.Registry)]
_loaded: dict[str, str] = {}  # digest of a plugin -> its module name


def load_components(plugins: Sequence[str] = ()) -> None:
    """Register liteseg's own components and those of plugin files, once per process.

    Raises:
        UserError: a plugin is missing or fails; with its file and line.
    """
    for package in OWN:
        importlib.import_module(f"liteseg.{package}")
    for plugin in plugins or ():
        _load_plugin(plugin)


def load_plugins(cfg: Config) -> None:
    """Register liteseg's own components and those of the config's plugins.

    Raises:
        UserError: a plugin is missing or fails.
    """
    from liteseg.config.schema import SCHEMA  # needs PyYAML, which `liteseg doctor` may not have

    plugins = cfg.get("plugins", ())
    plugins = () if SCHEMA["plugins"].problem(plugins) else plugins
    load_components([str(locate_plugin(plugin, cfg.path.parent)) for plugin in plugins])


def locate_plugin(plugin: str, folder: Path) -> Path:
    """The file of a plugin, relative to `folder` or else to the current folder."""
    path = Path(os.path.expanduser(plugin))
    return folder / path if os.path.isfile(folder / path) else path


def copy_plugins(plugins: Sequence[str], folder: Path, target: Path) -> list[str]:
    """Copy plugins into the folder `target`, with a hash in their names.

    Args:
        plugins: of a config in `folder`, which have been loaded.
        folder: of the config.
        target: the folder, created if there are plugins.

    Returns:
        Their paths relative to the parent of `target`.
    """
    copies = []
    for plugin in plugins:
        path = locate_plugin(plugin, folder).resolve()
        name = path.name
        if path.parent != target.resolve():
            code = path.read_bytes()
            name = f"{path.stem}_{_digest(code)[:8]}.py"
            with atomic_write(target / name) as file:
                file.write(code)
        copies.append(f"{target.name}/{name}")
    return copies


def _digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def _load_plugin(plugin: str) -> None:
    path = Path(os.path.expanduser(plugin))
    if not os.path.isfile(path):
        where = os.path.abspath(path)
        raise UserError(
            f"plugins: {plugin} does not exist (looked for {where}; paths are relative to the "
            "config's folder or the current one)"
        )
    path = path.resolve()
    name = f"{_PREFIX}{path}"
    digest = _digest(path.read_bytes())
    copied = _loaded.get(digest)  # the same code: the copy in a run, or the other way round
    if name in sys.modules or any(c.__module__ == copied for r in _REGISTRIES for c in r.values()):
        return
    spec = importlib.util.spec_from_file_location(name, path) if path.suffix == ".py" else None
    if spec is None or spec.loader is None:
        raise UserError(f"plugins: {plugin} is not a Python file (*.py)")
    get_logger().info(f"plugins: running {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _loaded[digest] = name
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
