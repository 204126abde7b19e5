"""The log: plain lines on the console (around progress bars) and dated ones in `train.log`."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
from pathlib import Path
from typing import Any, Optional

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
    consoles = [one for one in get_logger().handlers if isinstance(one, _ConsoleHandler)]
    return any(console.level > logging.INFO for console in consoles)


def setup_logging(
    log_file: Optional[Path] = None, *, quiet: bool = False, verbose: bool = False
) -> None:
    """Send the log to the console and, if given, to the end of `log_file`.

    Only the main process (rank 0) logs, so that a line appears once. A second call replaces what
    the first one set up.

    Args:
        log_file: lines are added to it with date and level; its folder must exist.
        quiet: only warnings and errors on the console, no bars (the file gets everything).
        verbose: debug lines too, and those that a live line shows already (`on_bar` in `extra`).
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
    if log_file is not None:
        file = _FileHandler(log_file, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
