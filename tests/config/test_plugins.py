"""Plugins: the user's own components, registered from Python files."""

from __future__ import annotations

import sys
import traceback

import pytest

from liteseg.config import plugins
from liteseg.errors import UserError
from liteseg.registry import LOSSES

GOOD = """\
from liteseg.registry import LOSSES

@LOSSES.register
class PluginTestLoss:
    pass
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "OWN", ())

    def _load(text=None, name="mine.py"):
        if text is not None:
            (tmp_path / name).write_text(text)
        plugins.load_components([name])

    return _load


def test_a_plugin_registers_once(load, monkeypatch):
    monkeypatch.setattr(LOSSES, "_components", {})
    load(GOOD)
    load()
    assert list(LOSSES) == ["PluginTestLoss"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise RuntimeError('no')\n", r"mine.py:2: RuntimeError: no"),
        ("x = 1\n\ndef f(:\n", r"mine.py:3: SyntaxError"),
        ("import no_such_module\n", r"mine.py:1: ModuleNotFoundError"),
        (f"{GOOD}LOSSES.register(PluginTestLoss)\n", r"mine.py:6: ValueError: LOSSES already"),
    ],
)
def test_errors_in_a_plugin_have_file_and_line(load, monkeypatch, text, message):
    monkeypatch.setattr(LOSSES, "_components", {})
    with pytest.raises(UserError, match=message):
        load(text)


def test_missing_and_foreign_files(load):
    with pytest.raises(UserError, match=r"plugins: absent.py does not exist \(looked for /"):
        load(name="absent.py")
    with pytest.raises(UserError, match="is not a Python file"):
        load("x", name="notes.txt")


@pytest.fixture
def caught(load, monkeypatch, tmp_path):
    """The error that the function `f` of a plugin with that text raises."""

    def call(text, *arguments):
        load(text)
        function = sys.modules[f"liteseg_plugin:{tmp_path / 'mine.py'}"].f
        with pytest.raises(Exception) as caught:
            function(*arguments)
        return caught.value

    yield call
    sys.modules.pop(f"liteseg_plugin:{tmp_path / 'mine.py'}", None)


def test_an_error_in_a_library_is_located_at_the_line_of_the_plugin(caught, tmp_path):
    error = caught("import json\n\ndef f():\n    json.loads('{')\n")
    assert plugins.plugin_location(error).startswith(
        f"{tmp_path}/mine.py:4: JSONDecodeError: Expecting"
    )


def test_an_error_in_liteseg_is_not_located_in_the_plugin(caught):
    error = caught(
        "from liteseg.metrics import ConfusionMatrix\ndef f():\n    ConfusionMatrix(3).merge(1)\n"
    )
    assert plugins.plugin_location(error) is None
    assert plugins.plugin_location(ValueError("no traceback")) is None


def test_the_traceback_of_a_worker_process_is_located(caught, tmp_path):
    inner = caught("def f(key):\n    return {}[key]\n", "img")
    text = "".join(traceback.format_exception(type(inner), inner, inner.__traceback__))
    assert (
        plugins.plugin_location(RuntimeError(f"worker 1:\n{text}"))
        == f"{tmp_path}/mine.py:2: KeyError: 'img'"
    )
