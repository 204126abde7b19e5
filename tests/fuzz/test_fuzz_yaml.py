"""Config files, sound and damaged: a config whose errors are listed, or one clear error."""

from __future__ import annotations

import contextlib
import copy
import functools
import operator
import re

import numpy as np
import pytest
import yaml
from conftest import ROOT
from fuzzing import damaged, examples, result_or_error
from hypothesis import given
from hypothesis import strategies as st

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
QUICKSTART = yaml.safe_load(TEXTS[0])


def read(folder, content, overrides=()):
    """The config and its problems, after a round trip through its dump; None if it is refused."""
    path = folder / "config.yml"
    path.write_bytes(content)
    cfg = result_or_error(load_config, path, overrides)
    if cfg is None:
        return None
    problems = result_or_error(check, cfg)
    assert all(isinstance(problem, str) and problem for problem in problems)
    (folder / "dump.yml").write_text(cfg.dump(), encoding="utf-8")
    if len(cfg):  # a config without keys is written as an empty file
        np.testing.assert_equal(load_config(folder / "dump.yml").data, cfg.data)  # NaN included
    return cfg, problems


@examples(240)
@given(st.sampled_from([text.encode() for text in TEXTS]).flatmap(damaged))
def test_damaged_bytes(tmp_path, content):
    read(tmp_path, content)


TOKENS = ["{", "}", "[", "]", "&a", "*a", "!!python/name:os.system", "!!int", "<<", "|", ">", "'",
          '"', "#", "%", "@", "`", "? ", ": ", "- ", "---", "...", "~", "\ufeff", "\u2028", "\0",
          "\x07", "_base_: ", "_inherited_: false", "\t", " ", "  ", "\n", "\r\n"]  # fmt: skip


@examples(150)
@given(st.data(), st.sampled_from(TEXTS))
def test_damaged_tokens(tmp_path, data, text):
    """Words, spaces and signs misplaced, as a slip in an editor leaves them."""
    noise = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=2)
    tokens = data.draw(damaged(re.findall(r"\n| +|\w+|\W", text), noise))
    read(tmp_path, "".join(tokens).encode())


VALUES = st.sampled_from([
    None, True, False, 0, 1, -1, 3, 10**30, -(10**30), 0.5, -0.5, 1e308, float("inf"),
    float("nan"), "", "x", "auto", "1e-3", "010", "ü", "../x", "\0", [], [0], [1, 2], ["a"], [None],
    [[1], [2]], {}, {"a": 1}, {"type": "SGD"}, {"type": "PPLiteSeg"}, {"type": None}, {"type": []},
    {"type": "STDC1", "pretrained": "/no/such"}, [{"type": "Normalize"}],
    [{"type": "Resize", "target_size": [0, 0]}],
])  # fmt: skip


def paths_of(tree, path=()):
    """The paths of all values in nested dicts and lists, and of unknown keys next to them."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(tree, dict):
            yield (*path, f"{key}x")
        if isinstance(value, (dict, list)):
            yield from paths_of(value, (*path, key))


REMOVE = object()
PATHS = st.sampled_from(list(paths_of(QUICKSTART)))


@examples(250)
@given(st.dictionaries(PATHS, VALUES | st.just(REMOVE), min_size=1, max_size=3))
def test_wrong_values(tmp_path, changes):
    """A config that passes `check` is built, or refused in one clear error."""
    tree = copy.deepcopy(QUICKSTART)
    for (*path, key), value in changes.items():
        with contextlib.suppress(LookupError, TypeError):  # another change removed its parent
            parent = functools.reduce(operator.getitem, path, tree)
            if value is REMOVE:
                del parent[key]
            else:
                parent[key] = copy.deepcopy(value)
    found = read(tmp_path, yaml.safe_dump(tree, allow_unicode=True).encode())
    if found is None or found[1]:
        return
    cfg = found[0]
    result_or_error(build_dataset, cfg, "train")
    result_or_error(build_losses, cfg, 3, [1.0] * 9)
    result_or_error(build_optimizer, cfg, [])


@examples(120)
@given(st.dictionaries(PATHS, VALUES, min_size=1, max_size=3), st.data())
def test_overrides(tmp_path, changes, data):
    overrides = []
    for path, value in changes.items():
        value = yaml.safe_dump(value, default_flow_style=True).strip()
        text = f"{'.'.join(map(str, path))}={value}"
        damaged_text = damaged(text.encode()).map(lambda b: b.decode("utf-8", "replace"))
        overrides.append(data.draw(st.just(text) | damaged_text))
    read(tmp_path, yaml.safe_dump(QUICKSTART).encode(), overrides)


def bomb(width, depth):
    """Aliases that expand to width ** depth values."""
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    for level in range(1, depth):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines)


NUMBERS = range(60)
HOSTILE = [
    bomb(9, 9), "a: &a [*a]", "a: &a\n  <<: *a",
    "a0: &a0 {k: 1}\n" + "\n".join(f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}" for i in NUMBERS),
    "[" * 100_000, "{a: " * 100_000, "\n".join("  " * depth + "a:" for depth in range(1000)),
    "a: " + "x" * 2_000_000, "model: !!python/object/apply:os.mkdir ['executed']",
    "model: !!python/name:os.mkdir", "!!python/object/new:os.mkdir ['executed']", "a: !!set {x, y}",
    "a: !!binary aGVsbG8=", "iters: 2001-01-01", "a: !x y", "_base_: config.yml", "_base_: .",
    "_base_: none.yml", '_base_: "a\\0b"', "_base_: " + "x" * 1000, "_base_: /dev/zero",
    "_base_: [1, {}, []]", "_base_: {a: b}", "? [a, b]\n: c", "~: 1", "1: 1", "a: 1\n---\nb: 2",
    "iters: 1\niters: 2", "model:\n\ttype: PPLiteSeg", "plugins: [none.py]",
    'plugins: ["a\\0.py"]', f"plugins: [{'x' * 1000}]", "plugins: {a: 1}", "iters: 1" + "0" * 5000,
    "iters: 1e999999", "iters: 0x" + "f" * 5000, "", "# nothing\n", "~", "hello", "- a\n- b",
]  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[:20]))
def test_hostile_config_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read(tmp_path, content.encode())
    assert found is None or found[1]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1", "utf-8-sig", "cp037"])
def test_encodings(encoding, tmp_path):
    found = read(tmp_path, (TEXTS[0] + "# ü\n").encode(encoding, "replace"))
    assert (found is not None) == (encoding == "utf-8-sig")


def test_circle_of_files(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.yml").write_text(f"_base_: {(number + 1) % 5}.yml")
    start = tmp_path / "0.yml"
    assert result_or_error(load_config, start, expected="is circular") is None


def test_bases_that_multiply(tmp_path):
    """Each file names the next one twice: 2^30 files to read."""
    for number in range(30):
        (tmp_path / f"{number}.yml").write_text(f"_base_: [{number + 1}.yml, {number + 1}.yml]")
    (tmp_path / "30.yml").write_text("iters: 1")
    assert result_or_error(load_config, tmp_path / "0.yml", expected=".yml") is None
