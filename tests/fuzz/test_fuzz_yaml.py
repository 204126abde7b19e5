"""Config files, sound and spoiled: a config whose errors are listed, or one clear error."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import yaml
from conftest import ROOT
from fuzzing import MUTATIONS, ROUNDS, ends_well, numbered, rng_of

from liteseg.config.build import build_dataset, build_losses, build_optimizer
from liteseg.config.check import check
from liteseg.config.load import load_config

SOURCES = (
    "quickstart.yml",
    "_base_/cityscapes.yml",
    "pp_liteseg/pp_liteseg_stdc1_camvid_480x360_scratch.yml",
    "pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale1.0_160k.yml",
)
TEXTS = [(ROOT / "configs" / source).read_text(encoding="utf-8") for source in SOURCES]
WHOLE = yaml.safe_load((ROOT / "configs" / "quickstart.yml").read_text(encoding="utf-8"))


def read(folder, content, overrides=()):
    """The config and its errors, its dump read again; None where it can't be read."""
    path = folder / "config.yml"
    path.write_bytes(content)
    cfg = ends_well(lambda: load_config(path, overrides))
    if cfg is None:
        return None
    problems = ends_well(lambda: check(cfg))
    assert all(isinstance(problem, str) and problem for problem in problems)
    (folder / "dump.yml").write_text(cfg.dump(), encoding="utf-8")
    if len(cfg):  # a config without keys is written as an empty file
        again = load_config(folder / "dump.yml").data
        np.testing.assert_equal(again, cfg.data)  # NaN included
    return cfg, problems


SPOILED = numbered(MUTATIONS, 40)


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_bytes(name, tmp_path):
    rng = rng_of(name)
    text = TEXTS[rng.integers(0, len(TEXTS))].encode()
    read(tmp_path, MUTATIONS[name.partition("-")[0]](text, rng))


def swap(lines, rng):
    a, b = rng.integers(0, len(lines), 2)
    lines[a], lines[b] = lines[b], lines[a]


def drop(lines, rng):
    del lines[rng.integers(0, len(lines))]


def repeat(lines, rng):
    at = rng.integers(0, len(lines))
    lines.insert(at, lines[at])


def indent(lines, rng):
    at = rng.integers(0, len(lines))
    lines[at] = " " * int(rng.integers(0, 9)) + lines[at].lstrip()


def tab(lines, rng):
    at = rng.integers(0, len(lines))
    lines[at] = "\t" + lines[at]


TOKENS = ("{", "}", "[", "]", "&a", "*a", "!!python/name:os.system", "!!int", "<<", "|", ">", "'",
          '"', "#", "%", "@", "`", "? ", ": ", "- ", "---", "...", "~", "\ufeff", "\u2028", "\0",
          "\x07", "_base_: ", "_inherited_: false")  # fmt: skip


def token(lines, rng):
    at = rng.integers(0, len(lines))
    place = rng.integers(0, len(lines[at]) + 1)
    lines[at] = lines[at][:place] + TOKENS[rng.integers(0, len(TOKENS))] + lines[at][place:]


EDITS = {edit.__name__: edit for edit in (swap, drop, repeat, indent, tab, token)}
EDITED = numbered(EDITS, 25)


@pytest.mark.parametrize("name", EDITED)
def test_slips_of_an_editor(name, tmp_path):
    rng = rng_of(name)
    lines = TEXTS[rng.integers(0, len(TEXTS))].split("\n")
    for _ in range(rng.integers(1, 4)):
        EDITS[name.partition("-")[0]](lines, rng)
    read(tmp_path, str(rng.choice(["\n", "\r\n"])).join(lines).encode())


VALUES = (None, True, False, 0, 1, -1, 3, 10**30, -(10**30), 0.5, -0.5, 1e308, float("inf"),
          float("nan"), "", "x", "auto", "1e-3", "010", "ü", "../x", "\0", [], [0], [1, 2], ["a"],
          [None], [[1], [2]], {}, {"a": 1}, {"type": "SGD"}, {"type": "PPLiteSeg"}, {"type": None},
          {"type": []}, {"type": "STDC1", "pretrained": "/no/such"}, [{"type": "Normalize"}],
          [{"type": "Resize", "target_size": [0, 0]}])  # fmt: skip


def places(tree, path=()):
    """The paths of every value of nested dicts and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def changed(rng):
    """A working config with some values replaced, removed or added."""
    tree = copy.deepcopy(WHOLE)
    for _ in range(rng.integers(1, 4)):
        every = list(places(tree))
        *path, key = every[rng.integers(0, len(every))]
        parent = tree
        for step in path:
            parent = parent[step]
        what = rng.integers(0, 10)
        if what == 0:
            del parent[key]
        elif what == 1 and isinstance(parent, dict):
            parent[f"{key}x"] = parent[key]
        else:
            parent[key] = copy.deepcopy(VALUES[rng.integers(0, len(VALUES))])
    return tree


CHANGED = numbered(["values"], 250)


@pytest.mark.parametrize("name", CHANGED)
def test_wrong_values(name, tmp_path):
    """What `check` passes must be built, or refused in one clear error."""
    tree = changed(rng_of(name))
    read_one = read(tmp_path, yaml.safe_dump(tree, allow_unicode=True).encode())
    if read_one is None or read_one[1]:
        return
    cfg = read_one[0]
    ends_well(lambda: build_dataset(cfg, "train"))
    ends_well(lambda: build_losses(cfg, 3, [1.0] * 9))
    ends_well(lambda: build_optimizer(cfg, []))


OVERRIDES = numbered(["set"], 120)


@pytest.mark.parametrize("name", OVERRIDES)
def test_overrides(name, tmp_path):
    rng = rng_of(name)
    every = [".".join(map(str, path)) for path in places(WHOLE)]
    texts = []
    for _ in range(rng.integers(1, 4)):
        key = str(every[rng.integers(0, len(every))])
        value = yaml.safe_dump(VALUES[rng.integers(0, len(VALUES))], default_flow_style=True)
        text = f"{key}={value.strip()}"
        if rng.random() < 0.4:
            text = MUTATIONS["insert"](text.encode(), rng).decode("utf-8", "replace")
        texts.append(text)
    read(tmp_path, yaml.safe_dump(WHOLE).encode(), texts)


def bomb(width, depth):
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]"
        for level in range(1, depth)
    ]
    return "\n".join(lines)


HOSTILE = {
    "aliases_in_lists": bomb(9, 9),
    "aliases_in_merges": "a0: &a0 {k: 1}\n"
    + "\n".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60)),
    "circle": "a: &a [*a]",
    "circle_of_merges": "a: &a\n  <<: *a",
    "deep_lists": "[" * 100_000,
    "deep_mappings": "{a: " * 100_000,
    "deep_lines": "\n".join("  " * depth + "a:" for depth in range(1000)),
    "long": "a: " + "x" * 2_000_000,
    "python_object": "model: !!python/object/apply:os.mkdir ['executed']",
    "python_name": "model: !!python/name:os.mkdir",
    "python_new": "!!python/object/new:os.mkdir ['executed']",
    "set": "a: !!set {x, y}",
    "binary": "a: !!binary aGVsbG8=",
    "date": "iters: 2001-01-01",
    "own_tag": "a: !x y",
    "base_of_itself": "_base_: config.yml",
    "base_of_a_folder": "_base_: .",
    "base_that_is_missing": "_base_: none.yml",
    "base_with_nul": '_base_: "a\\0b"',
    "base_too_long": "_base_: " + "x" * 1000,
    "base_is_a_device": "_base_: /dev/zero",
    "bases": "_base_: [1, {}, []]",
    "base_is_a_mapping": "_base_: {a: b}",
    "key_is_a_list": "? [a, b]\n: c",
    "key_is_null": "~: 1",
    "key_is_a_number": "1: 1",
    "two_documents": "a: 1\n---\nb: 2",
    "two_keys": "iters: 1\niters: 2",
    "tabs": "model:\n\ttype: PPLiteSeg",
    "plugin_missing": "plugins: [none.py]",
    "plugin_with_nul": 'plugins: ["a\\0.py"]',
    "plugin_too_long": f"plugins: [{'x' * 1000}]",
    "plugins_of_wrong_type": "plugins: {a: 1}",
    "numbers": "iters: 1" + "0" * 5000,
    "float": "iters: 1e999999",
    "hexadecimal": "iters: 0x" + "f" * 5000,
    "empty": "",
    "only_comments": "# nothing\n",
    "null": "~",
    "scalar": "hello",
    "list": "- a\n- b",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read(tmp_path, HOSTILE[name].encode())
    assert found is None or found[1]  # never a config to train from
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1", "utf-8-sig", "cp037"])
def test_encodings(encoding, tmp_path):
    text = TEXTS[0] + "# ü\n"
    found = read(tmp_path, text.encode(encoding, "replace"))
    assert (found is not None) == (encoding == "utf-8-sig")


def test_circle_of_files(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.yml").write_text(f"_base_: {(number + 1) % 5}.yml")
    assert ends_well(lambda: load_config(tmp_path / "0.yml"), "goes in a circle") is None


def test_bases_that_multiply(tmp_path):
    """Each file names the next one twice: a thousand million readings."""
    for number in range(30):
        (tmp_path / f"{number}.yml").write_text(f"_base_: [{number + 1}.yml, {number + 1}.yml]")
    (tmp_path / "30.yml").write_text("iters: 1")
    assert ends_well(lambda: load_config(tmp_path / "0.yml"), ".yml") is None


def test_how_many_there_are():
    counts = [len(names) // ROUNDS for names in (SPOILED, EDITED, CHANGED, OVERRIDES)]
    assert counts == [240, 150, 250, 120]
