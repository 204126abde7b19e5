"""Console and log file."""

from __future__ import annotations

import logging
import socket
import sys

import pytest

from liteseg.utils.logging import get_logger, log_file, progress, setup_logging


@pytest.fixture
def fresh_logging():
    logger = get_logger()
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


@pytest.mark.usefixtures("fresh_logging")
def test_log_lines(tmp_path, capsys):
    setup_logging()
    setup_logging(quiet=True)  # replaces the handler
    with log_file(tmp_path / "train.log"):
        get_logger().info("plain")
        get_logger().warning("caution")
        get_logger().debug("detail")
    assert capsys.readouterr().out == "warning: caution\n"
    get_logger().warning("after the block")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO plain", "WARNING caution"]
    assert lines[0][:2] == "20"
    assert capsys.readouterr().out == "warning: after the block\n"
    setup_logging(verbose=True)
    get_logger().debug("detail")
    assert capsys.readouterr().out == "detail\n"


@pytest.mark.usefixtures("fresh_logging")
def test_a_line_on_the_progress_bar_is_not_printed_again(tmp_path, capsys):
    for verbose, expected in ((False, ""), (True, "iteration 1\n")):
        setup_logging(verbose=verbose)
        with log_file(tmp_path / "train.log"):
            get_logger().info("iteration 1", extra={"on_bar": True})
        assert capsys.readouterr().out == expected
    assert (tmp_path / "train.log").read_text().count("INFO iteration 1") == 2


@pytest.mark.usefixtures("fresh_logging")
def test_bars_on_terminals_unless_quiet(monkeypatch):
    for terminal, quiet, shown, expected in (
        (True, False, True, True),
        (False, False, True, False),
        (True, True, True, False),
        (True, False, False, False),
    ):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        setup_logging(quiet=quiet)
        bar = progress(range(3), "counting", shown=shown)
        assert (not bar.disable) == expected
        assert list(bar) == [0, 1, 2]


@pytest.mark.usefixtures("fresh_logging")
def test_other_ranks_name_their_host_and_write_no_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    with log_file(tmp_path / "train.log"):  # sets up the console, too
        get_logger().log(logging.ERROR, "x")
    output, errors = capsys.readouterr()
    assert output.endswith(f" [{socket.gethostname()}, rank 1] x\n")
    assert errors == ""
    assert not (tmp_path / "train.log").exists()


def test_a_full_disk_ends_the_log_file_with_one_warning(tmp_path, capfd):
    (tmp_path / "train.log").symlink_to("/dev/full")
    with log_file(tmp_path / "train.log"):
        for line in ("one", "two"):
            get_logger().info(line)
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out.count("No space left") == 1
    assert captured.out.split("\n")[0] == "one"
    assert "two" in captured.out
