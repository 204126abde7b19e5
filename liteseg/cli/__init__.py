"""The `liteseg` command; each subcommand is a module that parses, calls a task and prints."""

from __future__ import annotations

import argparse
import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from liteseg import __version__
from liteseg.cli.arguments import trust_found_config
from liteseg.cli.parser import Parser
from liteseg.config.plugins import plugin_location
from liteseg.errors import UserError
from liteseg.tasks.launch import ProcessFailed, end_at_once
from liteseg.utils.logging import setup_logging
from liteseg.utils.runtime import world_size
from liteseg.utils.text import safe

COMMANDS = {
    "train": "train a model from a config, or resume a training",
    "eval": "evaluate trained weights on a dataset",
    "compare": "compare models on the same images: better, worse or not distinguishable",
    "predict": "label images, folders and videos; write masks and overlays",
    "export": "write a trained model for Paddle Inference, ONNX Runtime or OpenVINO, verified",
    "bench": "measure a network, data loading, training, evaluation and exported models",
    "data": "check or pack a dataset; generate the synthetic Streets dataset",
    "models": "list, show, download and pack models: published weights and your own, by name",
    "dash": "open the dashboard of all runs in a folder",
    "config": "show a config with the origin of each value; check configs",
    "doctor": "report what on this machine would break training, and the fix",
}


# Import names of the packages that liteseg requires.
PACKAGES = ("paddle", "numpy", "cv2", "PIL", "yaml", "tqdm", "visualdl", "filelock", "jinja2")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a subcommand.

    Returns:
        0: done; 2: a user error, reported in one message; 1: a process failed; 130: Ctrl-C. Any
        other exception is raised.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(argv)
        args.argv = argv
        setup_logging(quiet=args.quiet, verbose=args.verbose)
        if getattr(args, "trust_plugins", False):
            trust_found_config(args)
        code = importlib.import_module(f"liteseg.cli.{args.command}").run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _is_closed(sys.stdout.fileno()):
            raise
        # `liteseg ... | head`; Python writes the rest of its buffer at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        problem: Optional[str] = str(error)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package:  # a system library is missing: which package loads it?
            files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
            package = next((p for f in files[::-1] for p in PACKAGES if p in f.parts), "")
        if package not in PACKAGES:
            raise
        problem = f"{package} can't be imported ({error}); run `liteseg doctor` for the fix"
    except KeyboardInterrupt:
        print(f"liteseg {argv[0]}: interrupted", file=sys.stderr)
        return 130
    except ProcessFailed as error:
        print(safe(str(error)), file=sys.stderr)
        return _ended(1)
    except Exception as error:
        problem = plugin_location(error)  # an error in a plugin is a user error
        if problem is None:
            if world_size() == 1:
                raise
            traceback.print_exc()
            return _ended(1)
    print(f"liteseg {argv[0]}: {safe(str(problem))}", file=sys.stderr)
    return _ended(2)


def _ended(code: int) -> int:
    """The exit code; one of several processes ends at once (see `end_at_once`)."""
    if world_size() > 1:
        end_at_once(code)
    return code


def _is_closed(pipe: int) -> bool:
    """Whether nobody reads the pipe."""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="liteseg", description="PP-LiteSeg for PaddlePaddle.")
    parser.add_argument("--version", action="version", version=f"liteseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if name in argv[:1]:  # import only this command's module: `liteseg --help` is fast
            module = importlib.import_module(f"liteseg.cli.{name}")
            command.description = module.__doc__
            module.add_arguments(command)
    return parser.parse_args(argv)
