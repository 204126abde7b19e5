"""Indexes of models, named by `$LITESEG_ZOO`: `index.json` on a server or in a folder."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from liteseg.errors import UserError, quoted
from liteseg.utils.files import read_json, write_json
from liteseg.utils.text import redacted
from liteseg.utils.weights.download import cache_path, is_url, refresh
from liteseg.utils.weights.zoo import Model

NAME = "index.json"
FORMAT = "liteseg-zoo-1"
MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_MAX_BYTES = 4 << 20
_FRESH_S = 60.0  # a command reads an index several times
_read_at: dict[Path, float] = {}
# Checks of the fields of an entry; all but `file` may be left out.
_FIELDS = {
    "file": lambda v: isinstance(v, str) and v.isprintable() and bool(v),
    "sha256": lambda v: isinstance(v, str) and bool(re.fullmatch(r"[0-9a-fA-F]{64}", v)),
    "config": lambda v: isinstance(v, str) and ".." not in v and not os.path.isabs(v),
    "aliases": lambda v: isinstance(v, list) and all(map(_is_name, v)),
    "data": lambda v: isinstance(v, str) and v.isprintable() and len(v) < 200,
    "classes": lambda v: type(v) is int and 0 < v <= 255,
    "scale": lambda v: type(v) in (int, float) and 0 < v <= 64,
    "miou": lambda v: type(v) in (int, float) and 0 <= v <= 1,
    "size": lambda v: type(v) is int and v >= 0,
}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(MODEL_NAME.fullmatch(value)) and len(value) < 200


def own_models() -> tuple[Model, ...]:
    """The models of all indexes in `$LITESEG_ZOO`, which is addresses and folders, by commas.

    Raises:
        UserError: an index cannot be read.
    """
    places = filter(None, map(str.strip, os.environ.get("LITESEG_ZOO", "").split(",")))
    return tuple(model for place in places for model in read_index(place))


def read_index(place: str) -> list[Model]:
    """The models of the index at an address, or in a folder.

    Raises:
        UserError: it cannot be read, or is no index.
    """
    if is_url(place):
        url = place if place.lower().endswith(".json") else f"{place.rstrip('/')}/{NAME}"
        path = cache_path(url)
        if path not in _read_at or time.monotonic() - _read_at[path] > _FRESH_S:
            refresh(url, check=lambda part: _parse(part, url))
            _read_at[path] = time.monotonic()
        return _parse(path, url)
    folder = Path(place).expanduser().absolute()
    path = folder if folder.suffix == ".json" else folder / NAME
    return _parse(path, str(path))


def _parse(path: Path, place: str) -> list[Model]:
    """The models of an index.

    Args:
        path: a file.
        place: its address or path; the files of its models are relative to it.

    Raises:
        UserError: it cannot be read, or is no index.
    """
    try:
        content = read_json(path, _MAX_BYTES)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f'it lacks "format": {FORMAT!r}')
        return [_model(name, entry, place) for name, entry in content["models"].items()]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(
            f"{redacted(place)}: not an index of models ({problem}); LITESEG_ZOO takes addresses "
            "and folders with an index.json, which `liteseg models pack --index` writes"
        ) from error


def _model(name: str, entry: Any, place: str) -> Model:
    if not _is_name(name) or not isinstance(entry, dict):
        raise ValueError(f"{quoted(name)} is no model")
    given = {field: entry[field] for field in _FIELDS if entry.get(field) is not None}
    for field, value in given.items():
        if not _FIELDS[field](value):
            raise ValueError(f"{field} of {name} is {quoted(value)}")
    file = given.pop("file", None)
    if file is None:
        raise ValueError(f"{name} has no file")
    if not is_url(file):
        if ".." in Path(file).parts or os.path.isabs(file) or ":" in file:
            raise ValueError(f"file of {name} is {quoted(file)}, outside of the folder")
        folder, slash, _ = place.partition("?")[0].rpartition("/")
        file = f"{folder}{slash}{quote(file) if is_url(place) else file}"
    given["aliases"] = tuple(given.get("aliases", ()))
    return Model(name, file, **given)


def add_entry(folder: Path, name: str, entry: dict[str, Any]) -> Path:
    """Write or replace an entry of the index in `folder`; its aliases and other entries are kept.

    Raises:
        UserError: there is a file of that name that is no index, or it cannot be written.
    """
    path = folder / NAME
    with FileLock(folder / f".{NAME}.lock"):
        models = {}
        if path.exists():
            _parse(path, str(path))
            models = read_json(path, _MAX_BYTES)["models"]
        kept = {"aliases": models[name]["aliases"]} if "aliases" in models.get(name, {}) else {}
        entry = {**kept, **{field: value for field, value in entry.items() if value is not None}}
        write_json(path, {"format": FORMAT, "models": {**models, name: entry}})
    return path
