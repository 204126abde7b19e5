"""YAML reading, inheritance, overrides and provenance."""

from __future__ import annotations

import math

import pytest
import yaml

from liteseg.config.load import find_config, load_config
from liteseg.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def test_numbers_are_yaml_1_2(write):
    text = (
        "a: 1e-5\nb: 5.0E-4\nc: 1.\nd: 0x10\ne: 010\nf: 2022-01-01\ng: -.5\nh: 12:30\ni: 160_000\n"
    )
    data = load_config(write("c.yml", text)).data
    assert list(data.values()) == [1e-5, 5e-4, 1.0, 16, "010", "2022-01-01", -0.5, "12:30", 160000]
    assert isinstance(data["a"], float)


def test_origin_of_keys_and_items(write):
    write("base.yml", "loss:\n  coef: [1]\n  types:\n    - type: A\n      k: 1\niters: 5\n")
    config = load_config(write("sub/c.yml", "_base_: ../base.yml\nloss:\n  coef: [2]\n"))
    assert config.data == {"loss": {"coef": [2], "types": [{"type": "A", "k": 1}]}, "iters": 5}
    assert config.origin("loss.coef") == "sub/c.yml:3"
    assert config.origin("loss.types.0") == "base.yml:4"
    assert config.origin("loss.types.0.k") == "base.yml:5"
    assert config.origin("loss.types.0.absent") == "base.yml:4"  # where it should have been
    assert config.origin("absent") == "sub/c.yml"
    assert "_base_" not in config


def test_later_bases_win_and_lists_are_replaced(write):
    write("a.yml", "x: {p: 1, q: 1}\nl: [1, 2, 3]\n")
    write("b.yml", "x: {q: 2}\n")
    config = load_config(write("c.yml", "_base_: [a.yml, b.yml]\nl: [9]\n"))
    assert config.data == {"x": {"p": 1, "q": 2}, "l": [9]}


def test_inherited_false_drops_the_base(write):
    write("a.yml", "model: {type: T, chs: [1], backbone: {type: A, depth: 3}}\n")
    config = load_config(
        write("b.yml", "_base_: a.yml\nmodel:\n  _inherited_: False\n  backbone: {type: B}\n")
    )
    assert config.data == {"model": {"backbone": {"type": "B"}}}
    deeper = load_config(
        write("c.yml", "_base_: a.yml\nmodel: {backbone: {_inherited_: false, type: B}}\n")
    )
    assert deeper.data["model"] == {"type": "T", "chs": [1], "backbone": {"type": "B"}}


def test_mapping_over_scalar_and_back(write):
    write("a.yml", "amp: true\nema: {decay: 0.9}\n")
    config = load_config(write("b.yml", "_base_: a.yml\namp: {level: O1}\nema: false\n"))
    assert config.data == {"amp": {"level": "O1"}, "ema": False}


def test_circle_and_missing_base(write):
    write("a.yml", "_base_: b.yml\n")
    path = write("b.yml", "_base_: a.yml\n")
    with pytest.raises(UserError, match=r"a.yml:1: _base_ is circular: b.yml -> a.yml -> b"):
        load_config(path)
    with pytest.raises(UserError, match=r"c.yml:2: _base_ 'no.yml' does not exist"):
        load_config(write("c.yml", "x: 1\n_base_: no.yml\n"))
    with pytest.raises(UserError, match=r"d.yml:1: _base_ names a file"):
        load_config(write("d.yml", "_base_: [3]\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"c.yml:3: the key 'a' is given twice, first at c.yml:1"),
        ("a:\n  - {b: 1, b: 2}\n", r"c.yml:2: the key 'b'"),
        ("a: 1\n\tb: 2\n", r"c.yml:2: not YAML: .*spaces, not tabs"),
        ("a: [1\nb: 2\n", r"c.yml:2: not YAML"),
        (b"a: 1\nb: \xff\xfe\n", r"c.yml:2: not UTF-8"),
        ("a: 1\nb: \0\n", r"c.yml:2: character"),
        ("", r"c.yml: the config is empty"),
        ("# nothing\n", r"c.yml: the config is empty"),
        ("- a\n", r"c.yml: a config is a mapping"),
        ("a: 1\n---\nb: 2\n", r"c.yml:2: not YAML"),
        (
            "a: !!python/object:os.system {}\nb: !!python/name:os.system x\n",
            r"c.yml:1: the YAML tag",
        ),
        ("a: !!int abc\n", r"c.yml:1: 'abc' is not a int"),
        ("1: a\n", r"c.yml:1: the key '1' is not a name"),
        ("on: a\n", r"c.yml:1: the key 'on' is not a name"),
        ("? [a]\n: b\n", r"c.yml:1: the key"),
        ("a: &x [*x]\n", r"c.yml:1: an alias"),
        ("a: *x\n", r"c.yml:1: not YAML: .*undefined alias"),
        ("a: " + "[" * 5000, r"c.yml:1: YAML nested too deeply"),
        ("a: {_inherited_: 3}\n", r"c.yml:1: _inherited_ is true or false, not 3"),
        ("x: " + "y" * 1_100_000, r"c.yml: 1100003 bytes; too large for a YAML config"),
    ],
)
def test_bad_files_are_named_with_their_line(write, text, message):
    with pytest.raises(UserError, match=message):
        load_config(write("c.yml", text))


def test_alias_bomb_is_refused(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(UserError, match="aliases may multiply"):
        load_config(write("c.yml", "\n".join(lines)))


def test_anchors_and_merge_keys(write):
    text = "a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}\nc: {<<: [{p: 7}, *a]}\nd: *a\n"
    data = load_config(write("c.yml", text)).data
    assert data == yaml.safe_load(text)
    with pytest.raises(UserError, match=r"c.yml:1: `<<` merges mappings"):
        load_config(write("c.yml", "a: {<<: 3}\n"))


BASE = "a: {b: {c: 1}}\nlist:\n  - {type: X, size: [1, 2]}\n  - {type: Y}\nn: 1\n"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("a.b.c=1e-3", "a.b.c", 1e-3),
        ("list.1.type=Z", "list.1.type", "Z"),
        ("list.0.size=[256, 256]", "list.0.size", [256, 256]),
        ("list.0.size.1=9", "list.0.size.1", 9),
        ("a.b.new=x=y", "a.b.new", "x=y"),
        ("top={k: 1}", "top", {"k": 1}),
        ("a.b={d: 2}", "a.b", {"c": 1, "d": 2}),
        ("a.b={_inherited_: false, d: 2}", "a.b", {"d": 2}),
        ("n=", "n", None),
        ("n=null", "n", None),
    ],
)
def test_overrides(write, override, key, value):
    config = load_config(write("c.yml", BASE), [override])
    node = config.data
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    assert node == value
    assert config.origin(key) == "--set"


def test_overrides_apply_in_order(write):
    assert load_config(write("c.yml", BASE), ["n=2", "n=3"])["n"] == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("lists.0.type=3", "no 'lists' in the config; did you mean 'list'"),
        ("a.d.c=3", "no 'd' in a; to add it, set the whole mapping: --set 'd={c: ...}'"),
        ("list.2.type=3", r"list is a list of 2 \(indices are 0 to 1\), not '2'"),
        ("list.x=3", "list is a list of 2"),
        ("n.x=3", "n is 1, which contains no 'x'"),
        ("n=[1", r"--set: not YAML.*in --set n=\[1"),
    ],
)
def test_bad_overrides(write, override, message):
    with pytest.raises(UserError, match=message):
        load_config(write("c.yml", BASE), [override])


AWKWARD = {
    "lr": 5.0e-4,
    "tiny": 1e-5,
    "big": 1e22,
    "inf": math.inf,
    "int": 160000,
    "flags": [True, False, None],
    "texts": ["1e-5", "010", "yes", "null", "", " x", "a: b", "#", "2022-01-01", "é", "1_0", "~"],
    "lines": "a\nb\t😀",
    "empty": {"list": [], "map": {}},
    "deep": [[1, [2]], [{"a": {"b": [1]}, "c": 2}], {"type": "X", "l": [{"y": 1}]}],
    "url": "https://host/a.tar.gz",
}


def test_dump_loads_back_the_same(write):
    quoted = yaml.safe_dump(AWKWARD, default_style='"')  # every text quoted, numbers tagged
    config = load_config(write("c.yml", quoted))
    assert config.data == AWKWARD
    again = load_config(write("d.yml", config.dump()))
    assert again.data == AWKWARD
    assert yaml.safe_load(config.dump()) == AWKWARD  # other parsers agree
    assert load_config(write("e.yml", config.annotated())).data == AWKWARD


def test_annotated_names_the_origin_of_each_line(write):
    write("base.yml", "l:\n  - {type: A, k: 1}\n")
    config = load_config(write("c.yml", "_base_: base.yml\nn: 1\n"), ["n=2", "l.0.k=3"])
    lines = [line.split("  # ") for line in config.annotated().splitlines()]
    assert [(text.rstrip(), origin.strip()) for text, origin in lines] == [
        ("l:", "base.yml:1"),
        ("  - type: A", "base.yml:2"),
        ("    k: 3", "--set"),
        ("n: 2", "--set"),
    ]


def test_config_is_read_only(write):
    config = load_config(write("c.yml", "a: {b: [1]}\n"))
    config["a"]["b"].append(2)
    config.data["a"]["b"].append(3)
    assert config.data == {"a": {"b": [1]}}
    assert list(config) == ["a"]
    assert len(config) == 1
    with pytest.raises(TypeError):
        config["a"] = 1


def test_shipped_configs_are_found_by_name(write):
    name = "pp_liteseg/pp_liteseg_stdc1_camvid_960x720_10k"
    assert find_config(name) == find_config(f"{name}.yml")
    assert find_config("quickstart").name == "quickstart.yml"
    folder, _, file = name.rpartition("/")
    assert not folder or find_config(file) == find_config(name)
    with pytest.raises(
        UserError, match=r"no config 'quikstart.yml'; did you mean .*quickstart.yml"
    ):
        find_config("quikstart.yml")
    with pytest.raises(UserError, match="is a folder"):
        find_config("/tmp")
