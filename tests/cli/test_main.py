"""The `liteseg` command itself: help, version, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from liteseg import __version__, cli
from liteseg.cli import main
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "shapes.yml"], "give the config as --config shapes.yml"),
        (["data", "check", "shapes.yml"], "give the config as --config shapes.yml"),
        (["train", "--config", "c.yml", "batch_size=4"], "config value as --set batch_size=4"),
        (["train", "--config", "c.yml", "--lr", "0.01"], "lr_scheduler.learning_rate=0.01"),
        (["train", "--config", "c.yml", "--lr=0.01"], "lr_scheduler.learning_rate=0.01"),
        (["train", "--config", "c.yml", "--batch-size", "4"], "--set batch_size=4"),
        (["train", "--config", "c.yml", "--epochs", "4"], "liteseg counts iterations"),
        (["train", "--config", "c.yml", "--amp"], "--set amp=VALUE"),
        (["train", "--config", "c.yml", "--ouput", "x"], "did you mean --output?"),
        (["eval", "--weigths=run"], "did you mean --weights?"),
        (["data", "pack", "--verfiy"], "did you mean --verify?"),
        (["trian"], "did you mean train?"),
        (["data", "chekc"], "did you mean check?"),
        (["export", "--format", "onx"], "did you mean onnx?"),
        (["train", "--config", "c.yml", "--set", "iters", "=", "5"], "--set iters=5"),
        (["train", "--config", "c.yml", "--set", "iters", "=5"], "--set iters=5"),
        (["train", "--config", "c.yml", "--set", "iters=", "5"], "--set iters=5"),
    ],
)
def test_options_of_other_tools_are_answered_with_what_to_write(words, expected, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "config.yml" not in message


def test_a_closed_pipe_ends_without_a_traceback(tmp_path):
    command = f"{sys.executable} -m liteseg config show quickstart | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("batch_size: 6")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    # More text than a pipe holds, so that the write itself fails.
    code = """
import sys, types
from liteseg import cli
from liteseg.cli.arguments import complete

module = sys.modules["liteseg.cli.dash"] = types.ModuleType("liteseg.cli.dash")
module.add_arguments = lambda parser: complete(parser, "example")
module.run = lambda args: print("x\\n" * 1_000_000)
sys.exit(cli.main(["dash"]))
"""
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$0" | head -1; exit ${{PIPESTATUS[0]}}', code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_missing_weights_are_reported_as_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    export = ["export", "--format", "onnx", "--output", "e"]
    for command in (["eval"], ["predict", "a.png"], export):
        assert main([*command, "--weights", "nofile.pdparams"]) == 2
        assert "nofile.pdparams does not exist" in capsys.readouterr().err
