"""YAML configs: `_base_` inheritance, `--set` overrides, and where every value came from.

A file is read into a tree of `Node`s, each knowing its `file:line`. Inheritance and overrides merge
trees, so the origin travels with the value. `Config` is the read-only result.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from liteseg.errors import UserError

INHERITED = "_inherited_"
BASE = "_base_"
OVERRIDE_ORIGIN = "--set"
_MAX_BYTES = 1_000_000
_MAX_NODES = 20_000  # a large config has a few hundred; alias bombs have billions


@dataclass(frozen=True)
class Node:
    """A YAML value and where it was written.

    `value` is a dict of str to Node, a list of Node, or a scalar (str, int, float, bool, None).
    """

    value: Any
    origin: str


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2: 1e-5 is a float; 010 and dates are text."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes any text that `_Loader` (or plain PyYAML) would read as a number."""


_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9]+[eE][-+]?[0-9]+
        |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag in (_TAG + "bool", _TAG + "null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"^<<$"), ["<"])
_SCALARS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null")}


class _Reader:
    """Turns one YAML text into Nodes; `where(line)` makes the origin of a zero-based line."""

    def __init__(self, where):
        self.where = where
        self.count = 0
        self.open: list[yaml.Node] = []

    def read(self, text: str) -> Optional[Node]:
        """The tree of `text`, or None if it holds no value."""
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            return root and self._convert(loader, root, self.where(0))
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position)
            raise UserError(
                f"{self.where(line)}: character {error.character!r} is not text"
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise UserError(f"{self.where(mark.line)}: not YAML: {_problem(error)}") from error
        except RecursionError as error:
            raise UserError(f"{self.where(0)}: YAML nested too deeply to read") from error

    def _convert(self, loader: _Loader, node: yaml.Node, origin: str) -> Node:
        here = self.where(node.start_mark.line)
        self.count += 1
        if self.count > _MAX_NODES:
            raise UserError(f"{here}: more than {_MAX_NODES} values; do aliases multiply here?")
        if any(node is parent for parent in self.open):
            raise UserError(f"{here}: an alias (*name) refers to the mapping or list it is part of")
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(loader, node, here), origin)
        self.open.append(node)
        if isinstance(node, yaml.SequenceNode):
            value = [self._convert(loader, n, self.where(n.start_mark.line)) for n in node.value]
        else:
            value = self._mapping(loader, node)
        self.open.pop()
        return Node(value, origin)

    def _scalar(self, loader: _Loader, node: yaml.ScalarNode, here: str):
        if node.tag not in _SCALARS:
            raise UserError(f"{here}: the YAML tag {node.tag!r} is not allowed in a config")
        try:
            return loader.construct_object(node)
        except (ValueError, KeyError) as error:  # `!!int abc`, `!!bool 7`
            raise UserError(f"{here}: {node.value!r} is not a {node.tag[len(_TAG) :]}") from error

    def _mapping(self, loader: _Loader, node: yaml.MappingNode) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            here = self.where(key_node.start_mark.line)
            if key_node.tag == _TAG + "merge":
                value = self._convert(loader, value_node, here).value
                for part in value if isinstance(value, list) else [Node(value, here)]:
                    if not isinstance(part.value, dict):
                        raise UserError(f"{here}: `<<` merges mappings, not {part.value!r}")
                    merged = {**part.value, **merged}  # the first mapping named wins
                continue
            if key_node.tag != _TAG + "str":
                found = getattr(key_node, "value", key_node.tag)
                raise UserError(f"{here}: the key {found!r} is not a name; quote it if it is meant")
            if key_node.value in own:
                first = own[key_node.value].origin
                raise UserError(f"{here}: the key {key_node.value!r} was given before, at {first}")
            own[key_node.value] = self._convert(loader, value_node, here)
        return {**merged, **own}


def _problem(error: yaml.MarkedYAMLError) -> str:
    text = " ".join(part for part in (error.context, error.problem) if part)
    return f"{text} (indent with spaces, not tabs)" if r"'\t'" in text else text


def _shown(path: Path) -> str:
    """`path` relative to the current folder where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read_file(path: Path) -> Node:
    shown = _shown(path)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise UserError(f"{shown}: {size} bytes; that is not a YAML config")
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}:{line}: not UTF-8 text; save the file as UTF-8") from error
    root = _Reader(lambda line: f"{shown}:{line + 1}").read(text)
    if root is None or root.value is None:
        raise UserError(f"{shown}: the config is empty")
    if not isinstance(root.value, dict):
        raise UserError(
            f"{shown}: a config is a mapping of `key: value` lines, not {_plain(root)!r}"
        )
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
            f"{inherited.origin}: {INHERITED} is true or false, not {_plain(inherited)!r}"
        )
    keep = base is not None and isinstance(base.value, dict)
    if inherited is not None and inherited.value is False:
        keep = False
    result = dict(base.value) if keep else {}
    for key, value in over.value.items():
        if key != INHERITED:
            result[key] = _merge(result.get(key), value)
    return Node(result, over.origin)


def _load_tree(path: Path, parents: tuple[Path, ...] = ()) -> Node:
    """The tree of a file, merged over its `_base_` files (the later ones over the earlier)."""
    own = _read_file(path)
    entry = own.value.pop(BASE, None)
    bases = [] if entry is None else entry.value if isinstance(entry.value, list) else [entry]
    chain = (*parents, path.resolve())
    merged = None
    for base in bases:
        if not isinstance(base.value, str):
            raise UserError(
                f"{base.origin}: {BASE} names a file (or a list of files), not {base.value!r}"
            )
        target = path.parent / base.value
        if not target.is_file():
            raise UserError(
                f"{base.origin}: {BASE} {base.value!r} is not there: {target} is no file"
                " (the path is relative to the file that names it)"
            )
        if target.resolve() in chain:
            loop = " -> ".join(_shown(p) for p in (*chain, target.resolve()))
            raise UserError(f"{base.origin}: {BASE} goes in a circle: {loop}")
        merged = _merge(merged, _load_tree(target, chain))
    return _merge(merged, own)


def _override(root: Node, text: str) -> Node:
    """`root` with one `a.b.0.c=value` applied; the value is YAML and merges as a file's would."""
    path, equals, value_text = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise UserError(f"--set {text}: write KEY=VALUE, for example batch_size=8")
    try:
        value = _Reader(lambda line: OVERRIDE_ORIGIN).read(value_text)
    except UserError as error:
        raise UserError(f"{error} (in --set {text})") from error
    return _set(root, path.split("."), value or Node(None, OVERRIDE_ORIGIN), done=(), text=text)


def _set(node: Node, keys: list[str], value: Node, done: tuple[str, ...], text: str) -> Node:
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
        if rest and key not in items:
            near = difflib.get_close_matches(key, items, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else _mapping_hint(keys)
            raise UserError(f"--set {text}: no {key!r} in {place or 'the config'}; {hint}")
    else:
        raise UserError(f"--set {text}: {place} is {node.value!r}, which has no {key!r}")
    if rest:
        items[index] = _set(items[index], rest, value, (*done, key), text)
    else:
        old = items.get(index) if isinstance(items, dict) else items[index]
        items[index] = _merge(old, value)
    return Node(items, node.origin)


def _mapping_hint(keys: list[str]) -> str:
    return f"to add it, set the whole mapping: --set '{keys[0]}={{{keys[1]}: ...}}'"


def _plain(node: Node):
    if isinstance(node.value, dict):
        return {key: _plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    return node.value


def _flow(value) -> str:
    """A scalar or a list of scalars on one line of YAML."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    # Inside [] nothing needs a document end mark, and quoting is at its strictest.
    text = yaml.dump(
        [value],
        Dumper=_Dumper,
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
    """The (YAML line, origin) pairs of a mapping or of a list that holds mappings or lists."""
    if isinstance(node.value, dict):
        entries = [(_flow(key) + ":", item) for key, item in node.value.items()]
    else:
        entries = [("-", item) for item in node.value]
    deeper = indent + "  "
    for head, item in entries:
        if _on_one_line(item):
            yield f"{indent}{head} {_flow(_plain(item))}", item.origin
        elif head == "-":  # the first line of the item shares the line of its dash
            (text, origin), *others = _lines(item, deeper)
            yield f"{indent}- {text[len(deeper) :]}", origin
            yield from others
        else:
            yield indent + head, item.origin
            yield from _lines(item, deeper)


class Config(Mapping[str, Any]):
    """A resolved config: a read-only mapping that knows where each value came from."""

    def __init__(self, root: Node, path: Path):
        self._root = root
        self.path = path

    def __getitem__(self, key: str):
        return _plain(self._root.value[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._root.value)

    def __len__(self) -> int:
        return len(self._root.value)

    @property
    def data(self) -> dict[str, Any]:
        """A plain nested copy of everything."""
        return _plain(self._root)

    def origin(self, key_path: str) -> str:
        """The `file:line` (or `--set`) that gave `key_path`, for example `loss.types.0.min_kept`.

        A key that is not there has the origin of the innermost mapping or list that should hold it.
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

    def dump(self) -> str:
        """YAML text that loads back to the same config, without its bases."""
        return "".join(f"{line}\n" for line, _ in _lines(self._root))

    def annotated(self) -> str:
        """The text of `dump` with the origin of every line as a comment."""
        lines = list(_lines(self._root))
        width = min(max((len(line) for line, _ in lines), default=0), 60)
        return "".join(f"{line:<{width}}  # {origin}\n" for line, origin in lines)


def _config_dirs() -> list[Path]:
    package = Path(__file__).resolve().parent
    return [d for d in (package.parent / "configs", package / "configs") if d.is_dir()]


def find_config(path: Union[str, Path]) -> Path:
    """The config file `path`, or the shipped config of that name (`.yml` may be left out).

    Raises:
        UserError: there is none; the message names the shipped configs most like it.
    """
    path = Path(path)
    if path.is_file():
        return path
    for folder in _config_dirs():
        for candidate in (folder / path, folder / f"{path}.yml"):
            if candidate.is_file():
                return candidate
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a YAML file")
    known = {f.stem: f for folder in _config_dirs() for f in sorted(folder.rglob("*.yml"))}
    near = difflib.get_close_matches(path.name.removesuffix(".yml"), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(_shown(known[n]) for n in near)}?" if near else ""
    raise UserError(f"no config {str(path)!r}{hint}")


def load_config(path: Union[str, Path], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config with its bases and apply `a.b.c=value` overrides in order.

    Nothing but the YAML is checked here: `builder.check` knows the keys and the components.

    Raises:
        UserError: the file, one of its bases or an override cannot be used; with file and line.
    """
    file = find_config(path)
    root = _load_tree(file)
    for text in overrides:
        root = _override(root, text)
    return Config(root, file)
