"""The log: plain lines on the console (around progress bars) and dated ones in `train.log`."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from liteseg.utils.runtime import is_main


class _ConsoleHandler(logging.Handler):
    """Writes through tqdm, which moves a running progress bar out of the way first."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            from tqdm import tqdm  # not above: `liteseg doctor` runs where it is missing

            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


class _FileHandler(logging.FileHandler):
    """Ends at the first line that can't be written (disk full), with one warning."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        get_logger().removeHandler(self)
        with contextlib.suppress(OSError):
            self.close()
        get_logger().warning(f"going on without {self.baseFilename}: {error}")


def get_logger() -> logging.Logger:
    """The one logger of liteseg."""
    return logging.getLogger("liteseg")


def progress(*args: Any, shown: bool = True, **options: Any) -> Any:
    """A tqdm bar on stderr, on a terminal only; none with --quiet.

    Args:
        args: tqdm's, as are `options`.
        shown: False for none.
    """
    from tqdm import tqdm

    # Asked here, because tqdm shows nothing on a terminal that does not tell its size.
    width, height = shutil.get_terminal_size()
    hidden = None if shown and not _is_quiet() else True
    return tqdm(*args, disable=hidden, ncols=width, nrows=height, **options)


def _is_quiet() -> bool:
    return console_options()["quiet"]


def console_options() -> dict[str, bool]:
    """The arguments that `setup_logging` was called with; False where it was not."""
    logger = get_logger()
    consoles = [handler for handler in logger.handlers if isinstance(handler, _ConsoleHandler)]
    return {
        "quiet": any(console.level > logging.INFO for console in consoles),
        "verbose": logger.level == logging.DEBUG,
    }


def setup_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send the log to the console.

    Only the main process (rank 0) logs, so that a line appears once. A second call replaces the
    first one.

    Args:
        quiet: only warnings and errors, no progress bars.
        verbose: also debug lines, and lines that a progress bar shows already (`on_bar` in `extra`).
    """
    logger = get_logger()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    # Paddle, VisualDL and others configure the root logger: without this, lines come twice.
    logger.propagate = False
    if not is_main():
        logger.addHandler(logging.NullHandler())
        return
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    console = _ConsoleHandler(logging.WARNING if quiet else logging.DEBUG)
    if not verbose:
        console.addFilter(lambda record: not getattr(record, "on_bar", False))
    logger.addHandler(console)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append the log, with date and level, to a file within the block.

    Sets up the console if nothing is set up yet. Quiet or not, the file gets every line.

    Args:
        path: the file; its folder must exist. Only the main process writes it.
    """
    logger = get_logger()
    if not logger.handlers:
        setup_logging()
    if not is_main():
        yield
        return
    handler = _FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
