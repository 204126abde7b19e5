"""The `liteseg` command itself: help, version, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from liteseg import __version__, cli
from liteseg.errors import UserError

WITHOUT_PADDLE = """
import sys
from liteseg.cli import main
try:
    main(sys.argv[1:])
finally:
    assert "paddle" not in sys.modules, "this imported paddle"
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)],
)
def test_help_does_not_wait_for_paddle(arguments):
    command = [sys.executable, "-c", WITHOUT_PADDLE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if arguments == ["--help"]:
        assert all(name in done.stdout for name in cli.COMMANDS)


def test_as_a_module():
    command = [sys.executable, "-m", "liteseg", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, f"liteseg {__version__}")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"liteseg {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "COMMAND"), (["trian"], "trian"), (["train", "--no-such"], "--no-such")],
)
def test_wrong_usage_is_exit_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def config_command(monkeypatch):
    """Replaces the work of `liteseg config show`."""
    from liteseg.cli import config

    def replace(action):
        monkeypatch.setattr(config, "run", lambda args: action())
        return cli.main(["config", "show", "quickstart"])

    return replace


def raising(error):
    def action():
        raise error

    return action


def test_a_user_error_is_one_message(config_command, capsys):
    assert config_command(raising(UserError("x.yml:3: no such key"))) == 2
    assert capsys.readouterr() == ("", "liteseg config: x.yml:3: no such key\n")


def test_ctrl_c(config_command, capsys):
    assert config_command(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "liteseg config: interrupted\n"


def test_other_errors_keep_their_traceback(config_command):
    with pytest.raises(ZeroDivisionError):
        config_command(lambda: 1 // 0)


def test_the_result_of_a_command_is_the_exit_code(config_command):
    assert config_command(lambda: 0) == 0
    assert config_command(lambda: 2) == 2
