"""YAML configs: `_base_` inheritance, `--set` overrides, and the origin of every value.

A file is read into a tree of `Node`s with their `file:line`. Inheritance and overrides merge trees,
so each value keeps its origin. `Config` is the read-only result.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from liteseg.config.yaml_tree import Dumper, Node, Reader, plain
from liteseg.errors import UserError, quoted
from liteseg.utils.files import read_regular
from liteseg.utils.text import joined

INHERITED = "_inherited_"
BASE = "_base_"
OVERRIDE_ORIGIN = "--set"
DEFAULT_ORIGIN = "default"
_MAX_BYTES = 200_000
SECTIONS = ("amp", "early_stop", "ema", "test_config")  # may be off, and --set turns them on
_MAX_FILES = 100  # bases that include each other twice would multiply


def _shown(path: Path) -> str:
    """`path`, relative to the current folder if it is below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return os.path.normpath(path)


def _read_file(path: Path) -> Node:
    shown = _shown(path)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise UserError(f"{shown}: {size} bytes; too large for a YAML config")
        raw = read_regular(path)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}:{line}: not UTF-8 text; save the file as UTF-8") from error
    root = Reader(lambda line: f"{shown}:{line + 1}").read(text)
    if root is None or root.value is None:
        raise UserError(f"{shown}: the config is empty")
    if not isinstance(root.value, dict):
        # The value is not quoted: `_base_` may name any file.
        kind = "a list" if isinstance(root.value, list) else "text or a number"
        raise UserError(f"{shown}: a config is a mapping of `key: value` lines, not {kind}")
    return Node(root.value, shown)


def _merge(base: Optional[Node], over: Node) -> Node:
    """`over` on top of `base`: mappings key by key, anything else replaced."""
    if isinstance(over.value, list):
        return Node([_merge(None, item) for item in over.value], over.origin)
    if not isinstance(over.value, dict):
        return over
    inherited = over.value.get(INHERITED)
    if inherited is not None and not isinstance(inherited.value, bool):
        raise UserError(
            f"{inherited.origin}: {INHERITED} is true or false, not {quoted(plain(inherited))}"
        )
    inherits = inherited is None or inherited.value
    result = dict(base.value) if inherits and base and isinstance(base.value, dict) else {}
    for key, value in over.value.items():
        if key != INHERITED:
            result[key] = _merge(result.get(key), value)
    return Node(result, over.origin)


def _load_tree(path: Path, parents: tuple[Path, ...], counter: Iterator[int]) -> Node:
    """The tree of a file, merged over its `_base_` files (the later ones over the earlier)."""
    if next(counter) > _MAX_FILES:
        raise UserError(f"{_shown(path)}: more than {_MAX_FILES} files are included through {BASE}")
    own = _read_file(path)
    entry = own.value.pop(BASE, None)
    bases = [] if entry is None else entry.value if isinstance(entry.value, list) else [entry]
    chain = (*parents, path.resolve())
    merged = None
    for base in bases:
        if not isinstance(base.value, str):
            found = quoted(plain(base))
            raise UserError(f"{base.origin}: {BASE} names a file (or a list of files), not {found}")
        target = path.parent / base.value
        if target.suffix not in (".yml", ".yaml"):
            raise UserError(f"{base.origin}: {BASE} {quoted(base.value)} is not a .yml file")
        if not os.path.isfile(target):
            raise UserError(
                f"{base.origin}: {BASE} {base.value!r} does not exist: {target}"
                " (the path is relative to the file that names it)"
            )
        if target.resolve() in chain:
            loop = " -> ".join(_shown(p) for p in (*chain, target.resolve()))
            raise UserError(f"{base.origin}: {BASE} is circular: {loop}")
        merged = _merge(merged, _load_tree(target, chain, counter))
    return _merge(merged, own)


def _override(root: Node, text: str) -> Node:
    """`root` with one `a.b.0.c=value` applied; the YAML value is merged like that of a file."""
    path, equals, value_text = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise UserError(f"--set {text}: write KEY=VALUE without spaces, for example batch_size=8")
    try:
        value = Reader(lambda line: OVERRIDE_ORIGIN).read(value_text)
    except UserError as error:
        raise UserError(f"{error} (in --set {text})") from error
    return _set(root, path.split("."), value or Node(None, OVERRIDE_ORIGIN), done=(), text=text)


def _set(node: Node, keys: list[str], value: Node, done: tuple[str, ...], text: str) -> Node:
    items: Any
    index: Any
    key, rest = keys[0], keys[1:]
    place = ".".join(done)
    if isinstance(node.value, list):
        if not key.isdecimal() or int(key) >= len(node.value):
            count = len(node.value)
            span = f"indices are 0 to {count - 1}" if count else "it is empty"
            raise UserError(f"--set {text}: {place} is a list of {count} ({span}), not {key!r}")
        items, index = list(node.value), int(key)
    elif isinstance(node.value, dict):
        items, index = dict(node.value), key
        if rest and not done and key in SECTIONS:
            section = items.get(key)
            if section is None or section.value in (None, False, True):
                items[key] = Node({}, OVERRIDE_ORIGIN)
        if rest and key not in items:
            near = difflib.get_close_matches(key, items, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else _mapping_hint(keys)
            raise UserError(f"--set {text}: no {key!r} in {place or 'the config'}; {hint}")
    else:
        raise UserError(
            f"--set {text}: {place} is {quoted(plain(node))}, which contains no {key!r}"
        )
    if rest:
        items[index] = _set(items[index], rest, value, (*done, key), text)
    else:
        old = items.get(index) if isinstance(items, dict) else items[index]
        items[index] = _merge(old, value)
    return Node(items, node.origin)


def _mapping_hint(keys: list[str]) -> str:
    return f"to add it, set the whole mapping: --set '{keys[0]}={{{keys[1]}: ...}}'"


def _flow(value) -> str:
    """A scalar or a list of scalars on one line of YAML."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    # A list needs no document end mark, and has the strictest quoting rules.
    text = yaml.dump(
        [value],
        Dumper=Dumper,
        default_flow_style=True,
        default_style=style,
        width=float("inf"),
        allow_unicode=True,
    )
    return text.strip()[1:-1]


def _on_one_line(node: Node) -> bool:
    """Whether `node` is a scalar, an empty mapping, or a list of scalars."""
    if isinstance(node.value, list):
        return not any(isinstance(item.value, (dict, list)) for item in node.value)
    return not isinstance(node.value, dict) or not node.value


def _lines(node: Node, indent: str = "") -> Iterator[tuple[str, str]]:
    """The (YAML line, origin) pairs of a mapping, or of a list that contains mappings or lists."""
    if isinstance(node.value, dict):
        entries = [(_flow(key) + ":", item) for key, item in node.value.items()]
    else:
        entries = [("-", item) for item in node.value]
    deeper = indent + "  "
    for head, item in entries:
        if _on_one_line(item):
            yield f"{indent}{head} {_flow(plain(item))}", item.origin
        elif head == "-":  # the first line of the item shares the line of its dash
            (text, origin), *others = _lines(item, deeper)
            yield f"{indent}- {text[len(deeper) :]}", origin
            yield from others
        else:
            yield indent + head, item.origin
            yield from _lines(item, deeper)


class Config(Mapping[str, Any]):
    """A config before its checks: a read-only mapping with the origin of each value."""

    def __init__(self, root: Node, path: Path):
        self._root = root
        self.path = path

    def __getitem__(self, key: str):
        return plain(self._root.value[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._root.value)

    def __len__(self) -> int:
        return len(self._root.value)

    def __repr__(self) -> str:
        return f"Config({str(self.path)!r}, {', '.join(self)})"

    def __str__(self) -> str:
        return self.dump()

    @property
    def data(self) -> dict[str, Any]:
        """A plain nested copy of everything."""
        return plain(self._root)

    def origin(self, key_path: str) -> str:
        """The `file:line` (or `--set`) of `key_path`, for example `loss.types.0.min_kept`.

        A missing key has the origin of the innermost mapping or list that should contain it.
        """
        node = self._root
        for key in key_path.split("."):
            if isinstance(node.value, dict) and key in node.value:
                node = node.value[key]
            elif isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
                node = node.value[int(key)]
            else:
                break
        return node.origin

    def changed(self, overrides: Sequence[str]) -> Config:
        """The same config with `a.b.c=value` overrides applied in order.

        Raises:
            UserError: an override cannot be applied.
        """
        root = self._root
        for text in overrides:
            root = _override(root, text)
        return Config(root, self.path)

    def changes(self, new: Config) -> list[str]:
        """`key.path: old -> new` of every value of `new` that differs."""
        return list(_changes(self.data, new.data))

    def filled(self, defaults: Mapping[str, Any]) -> Config:
        """The same config with `defaults` (plain nested values) for the keys that are missing."""
        return Config(_fill(self._root, defaults), self.path)

    def dump(self) -> str:
        """YAML text that loads back to the same config, without its bases."""
        return "".join(f"{line}\n" for line, _ in _lines(self._root))

    def annotated(self) -> str:
        """The text of `dump` with the origin of every line as a comment."""
        lines = list(_lines(self._root))
        width = min(max((len(line) for line, _ in lines), default=0), 60)
        return joined(f"{line:<{width}}  # {origin}" for line, origin in lines) + "\n"


def _changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """A section that is turned on or off is one change."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            values = old.get(key, "not set"), new.get(key, "not set")
            yield from _changes(*values, f"{path}.{key}" if path else str(key))
    elif old != new:
        yield f"{path}: {old} -> {new}"


def _fill(node: Node, defaults: Mapping[str, Any]) -> Node:
    """`node` with the keys of `defaults` that it lacks, at every level that both have."""
    items = dict(node.value)
    for name, default in defaults.items():
        if name not in items:
            items[name] = _default_node(default)
        elif isinstance(default, (Mapping, list)):
            items[name] = _fill_item(items[name], default)
    return Node(items, node.origin)


def _fill_item(node: Node, defaults: Any) -> Node:
    if isinstance(defaults, Mapping) and isinstance(node.value, dict):
        return _fill(node, defaults)
    if isinstance(defaults, list) and isinstance(node.value, list):
        filled = [_fill_item(item, default) for item, default in zip(node.value, defaults)]
        return Node([*filled, *node.value[len(filled) :]], node.origin)
    return node


def _default_node(value: Any) -> Node:
    if isinstance(value, Mapping):
        value = {name: _default_node(item) for name, item in value.items()}
    elif isinstance(value, (list, tuple)):
        value = [_default_node(item) for item in value]
    return Node(value, DEFAULT_ORIGIN)


def _config_dirs() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    return [d for d in (package.parent / "configs", package / "configs") if d.is_dir()]


def shipped_config(name: Union[str, Path]) -> Optional[Path]:
    """The shipped config of that name (`.yml` may be left out); None if there is none."""
    files = (folder / file for folder in _config_dirs() for file in (name, f"{name}.yml"))
    return next((file for file in files if os.path.isfile(file)), None)


def find_config(path: Union[str, Path]) -> Path:
    """The config file `path`, or the config of that name.

    Names are those of shipped configs (`.yml` and the folder may be left out) and of models.

    Raises:
        UserError: there is none; the message suggests similar names.
    """
    path = Path(path)
    if os.path.isfile(path):  # unlike Path.is_file, it accepts any text
        return path
    if found := shipped_config(path):
        return found
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; give a YAML file")
    if os.path.exists(path):
        raise UserError(f"{path} is not a regular file; give a YAML file")
    from liteseg.utils.weights.source import config_of_model, nearest_names

    model = config_of_model(str(path))
    if model is not None:
        file = shipped_config(model) if isinstance(model, str) else model
        if file is None:
            raise UserError(f"{path}: its config {model!r} is not shipped with this liteseg")
        return file
    shipped = [f for folder in _config_dirs() for f in sorted(folder.rglob("*.yml"))]
    for file in shipped:  # without its folder
        if str(path) in (file.stem, file.name) and file.parent.name != "_base_":
            return file
    named = dict(zip(*[nearest_names(str(path))] * 2))
    for files, names in ((path.absolute().parent.glob("*.y*ml"), {}), (shipped, named)):
        known = {**{f.stem: _shown(f) for f in files}, **names}
        near = difflib.get_close_matches(path.stem, known, n=3, cutoff=0.5)
        if near:
            break
    hint = f"; did you mean {' or '.join(known[n] for n in near)}?" if near else ""
    raise UserError(f"no config {str(path)!r}{hint}")


def load_config(path: Union[str, Path], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config with its bases and apply `a.b.c=value` overrides in order.

    Only the YAML syntax is checked here; `config.check` checks keys and components.

    Raises:
        UserError: the file, one of its bases or an override cannot be used, with file and line; or
            a pack, which may be anyone's, would run plugins.
    """
    file = find_config(path)
    root = _load_tree(file, parents=(), counter=itertools.count(1))
    cfg = Config(root, file).changed(overrides)
    named = not os.path.isfile(path) and shipped_config(path) is None
    if named and cfg.get("plugins") and cfg.origin("plugins") != OVERRIDE_ORIGIN:
        raise UserError(
            f"{path}: the config of this model would run {quoted(cfg['plugins'])}; if you trust "
            f"these Python files, give --config {file}"
        )
    return cfg
