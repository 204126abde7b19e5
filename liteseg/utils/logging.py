"""Logging: plain lines on the console, above progress bars, and dated lines in `train.log`."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from liteseg.utils.runtime import host_and_rank, is_main
from liteseg.utils.text import safe

_YELLOW, _PLAIN = "\x1b[33m", "\x1b[0m"  # ANSI codes


class _ConsoleHandler(logging.Handler):
    """Writes lines above a running progress bar; warnings with "warning:", yellow on a terminal.

    `tqdm.contrib.logging` would ignore the level and the filter that `setup_logging` sets.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = safe(super().format(record))
        if record.levelno < logging.WARNING:
            return text
        name = f"{record.levelname.lower()}:"
        colored = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        return f"{f'{_YELLOW}{name}{_PLAIN}' if colored else name} {text}"

    def emit(self, record: logging.LogRecord) -> None:
        try:
            from tqdm import tqdm  # not at the top: `liteseg doctor` runs without it

            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:  # `liteseg train ... | head`: the work continues
            get_logger().removeHandler(self)
        except Exception:
            self.handleError(record)


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))


class _FileHandler(logging.FileHandler):
    """Stops at the first line that can't be written (disk full), with one warning."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        get_logger().removeHandler(self)
        with contextlib.suppress(OSError):
            self.close()
        get_logger().warning(f"continuing without {self.baseFilename}: {error}")


def get_logger() -> logging.Logger:
    """The logger of liteseg."""
    return logging.getLogger("liteseg")


def progress(*args: Any, shown: bool = True, **options: Any) -> Any:
    """A tqdm progress bar on stderr; hidden without a terminal and with --quiet.

    Args:
        args: arguments of tqdm, as are `options`.
        shown: False hides the bar.
    """
    from tqdm import tqdm

    # Passed explicitly, because tqdm shows nothing on a terminal of unknown size.
    width, height = shutil.get_terminal_size()
    hidden = None if shown and not console_options()["quiet"] else True
    if "desc" in options:  # it may be the name of a file
        options["desc"] = safe(options["desc"])
    return tqdm(*args, disable=hidden, ncols=width, nrows=height, **options)


def console_options() -> dict[str, bool]:
    """The arguments of the last `setup_logging` call; False before the first."""
    logger = get_logger()
    consoles = [handler for handler in logger.handlers if isinstance(handler, _ConsoleHandler)]
    return {
        "quiet": any(console.level > logging.INFO for console in consoles),
        "verbose": logger.level == logging.DEBUG,
    }


def setup_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send the log to the console; in other processes than the main one, with host and rank.

    A second call replaces the first one.

    Args:
        quiet: only warnings and errors, no progress bars.
        verbose: also debug lines, and lines that a progress bar shows (`on_bar` in `extra`).
    """
    logger = get_logger()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    # Paddle, VisualDL and others configure the root logger, which would print lines twice.
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not is_main():  # its output is a file of this machine
        output = logging.StreamHandler(sys.stdout)
        output.setFormatter(_SafeFormatter(f"%(asctime)s [{host_and_rank()}] %(message)s"))
        logger.addHandler(output)
        return
    console = _ConsoleHandler(logging.WARNING if quiet else logging.DEBUG)
    if not verbose:
        console.addFilter(lambda record: not getattr(record, "on_bar", False))
    logger.addHandler(console)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append the log, with date and level, to a file within the block, even with --quiet.

    Sets up the console if nothing is set up yet. Only the main process writes the file.

    Args:
        path: the file; its folder must exist.
    """
    logger = get_logger()
    if not logger.handlers:
        setup_logging()
    if not is_main():
        yield
        return
    handler = _FileHandler(path, encoding="utf-8")
    handler.setFormatter(_SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
