"""YAML text as a tree of values with their origins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Optional

import yaml

from liteseg.errors import UserError, quoted

_MAX_NODES = 20_000  # a large config has a few hundred; alias bombs have billions
_MAX_DIGITS = 100


@dataclass(frozen=True)
class Node:
    """A YAML value and its origin (`file:line`).

    `value` is a dict of str to Node, a list of Node, or a scalar (str, int, float, bool, None).
    """

    value: Any
    origin: str


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2: 1e-5 is a float; 010 and dates are text."""


class Dumper(yaml.SafeDumper):
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
for _class in (_Loader, Dumper):
    _class.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"^<<$"), ["<"])
_NO_SPACE = re.compile(r"^\s*(?:- )?([A-Za-z_]\w*)(?::| *=)([^\s:/\\].*|(?<==) .+)$")  # `iters:100`
_COLLECTIONS = {_TAG + "seq", _TAG + "map"}
_SCALARS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null")}


class Reader:
    """Turns one YAML text into Nodes; `where(line)` makes the origin of a zero-based line."""

    def __init__(self, where: Callable[[int], str]):
        self.where = where
        self.count = 0
        self.open: list[yaml.Node] = []

    def read(self, text: str) -> Optional[Node]:
        """The tree of `text`, or None if it is empty."""
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            return None if root is None else self._convert(loader, root, self.where(0))
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position)
            raise UserError(
                f"{self.where(line)}: character {error.character!r} is not text"
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line if mark else 0
            lines = enumerate(text.splitlines()[: line + 1])
            if spaceless := [(n, found) for n, one in lines if (found := _NO_SPACE.match(one))]:
                line, found = spaceless[-1]
                raise UserError(f"{self.where(line)}: {_add_space(*found.groups())}") from error
            raise UserError(f"{self.where(line)}: not YAML: {_problem(error)}") from error
        except RecursionError as error:
            raise UserError(f"{self.where(0)}: YAML nested too deeply to read") from error

    def _convert(self, loader: _Loader, node: yaml.Node, origin: str) -> Node:
        here = self.where(node.start_mark.line)
        self.count += 1
        if self.count > _MAX_NODES:
            raise UserError(f"{here}: more than {_MAX_NODES} values; aliases may multiply them")
        if any(node is parent for parent in self.open):
            raise UserError(
                f"{here}: an alias (*name) refers to the mapping or list that contains it"
            )
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(loader, node, here), origin)
        if node.tag not in _COLLECTIONS:
            raise UserError(f"{here}: the YAML tag {quoted(node.tag)} is not allowed in a config")
        self.open.append(node)
        value: Any
        if isinstance(node, yaml.SequenceNode):
            value = [self._convert(loader, n, self.where(n.start_mark.line)) for n in node.value]
        else:
            assert isinstance(node, yaml.MappingNode)
            value = self._mapping(loader, node)
        self.open.pop()
        return Node(value, origin)

    def _scalar(self, loader: _Loader, node: yaml.ScalarNode, here: str):
        if node.tag not in _SCALARS:
            raise UserError(f"{here}: the YAML tag {quoted(node.tag)} is not allowed in a config")
        if node.tag != _TAG + "str" and len(node.value) > _MAX_DIGITS:
            raise UserError(f"{here}: {quoted(node.value)} is not a usable number")
        try:
            return loader.construct_object(node)
        except (ValueError, KeyError) as error:  # `!!int abc`, `!!bool 7`
            raise UserError(
                f"{here}: {quoted(node.value)} is not a {node.tag[len(_TAG) :]}"
            ) from error

    def _mapping(self, loader: _Loader, node: yaml.MappingNode) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            here = self.where(key_node.start_mark.line)
            if key_node.tag == _TAG + "merge":
                value = self._convert(loader, value_node, here).value
                for part in value if isinstance(value, list) else [Node(value, here)]:
                    if not isinstance(part.value, dict):
                        raise UserError(f"{here}: `<<` merges mappings, not {quoted(plain(part))}")
                    merged = {**part.value, **merged}  # the first mapping named wins
                continue
            key_text = getattr(key_node, "value", "")
            if node.flow_style and not getattr(value_node, "value", key_node):
                if found := _NO_SPACE.match(str(key_text)):
                    raise UserError(f"{here}: {_add_space(*found.groups())}")
                if str(key_text).isdecimal() and own:  # {learning_rate: 0,002}
                    last, number = list(own.items())[-1]
                    if isinstance(number.value, int):
                        raise UserError(
                            f"{here}: {last}: {number.value},{key_text} has a decimal comma; write "
                            f"{number.value}.{key_text}"
                        )
            if key_node.tag != _TAG + "str":
                found = getattr(key_node, "value", key_node.tag)
                raise UserError(
                    f"{here}: the key {quoted(found)} is not a name; quote it if it is intended"
                )
            if key_node.value in own:
                first = own[key_node.value].origin
                raise UserError(
                    f"{here}: the key {quoted(key_node.value)} is given twice, first at {first}"
                )
            own[key_node.value] = self._convert(loader, value_node, here)
        return {**merged, **own}


def _add_space(name: str, value: str) -> str:
    return f"a colon and a space must follow the key; write `{name}: {value.strip()}`"


def _problem(error: yaml.MarkedYAMLError) -> str:
    text = " ".join(part for part in (error.context, error.problem) if part)
    return f"{text} (use spaces, not tabs)" if r"'\t'" in text else text


def plain(node: Node) -> Any:
    """The value of a node with plain values inside: dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value
